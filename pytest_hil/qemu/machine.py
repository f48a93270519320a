"""One QEMU process, its channels and its files: from the command line to the end.

All channels are socket pairs whose other ends QEMU inherits: there is no path to be too long,
to collide, or to be left behind, and nobody else can connect.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pytest_hil import process
from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.errors import ChannelLost, ConsoleClosed, MachineDied, MachineError, OutcomeUnknown
from pytest_hil.process import Process
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu import cmdline, usb_gateway
from pytest_hil.qemu.hardware import Hardware, Memory, Wiring
from pytest_hil.qemu.monitor import Event, Monitor
from pytest_hil.qemu.overlay import Overlays
from pytest_hil.qemu.room import Room
from pytest_hil.shell.agent import AgentShell

_STDERR_LIMIT = 64 * 1024
_SEND_BUFFER = 2**20
# QEMU's own needs beside the guest's memory: it is counted when machines are admitted.
OVERHEAD = 32 * 2**20


@dataclass(frozen=True, slots=True)
class Seat:
    """How a machine is let in: where, how long it may wait, what it may push out."""

    room: Room
    timeout: float = 300.0
    progress: Progress = silent
    free_idle: Callable[[], bool] = field(default=lambda: False)


class Machine:
    """A running QEMU. A context manager; leaving it kills it.

    ``overlays``: disks that another machine left (None: new ones on the hardware's disks); they
    are this machine's once it has started, and go with it. ``history`` is what the machine said on
    its console before it was saved.
    Raises NoRoom, ToolMissing, MachineDied, MachineError.
    """

    def __init__(
        self,
        hardware: Hardware,
        seat: Seat,
        *,
        memory: Memory | None = None,
        overlays: Overlays | None = None,
        incoming: bool = False,
        history: bytes = b"",
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.hardware = hardware
        self.started = time.monotonic()
        self.powered = True
        # Where the guest's connections to our USB devices go; nobody listens there by itself.
        self.usb_name = usb_gateway.new_name()
        self._seat = seat
        self._closing = threading.Lock()
        self._closed = False
        self._exit: list[Callable[[], None]] = []
        self.on_event: Callable[[Event], None] = _ignore
        try:
            self.overlays = overlays or Overlays.on_disks(hardware.disks)
            self._exit.append(self.remove_overlays)
            self._start(memory or Memory(), incoming, history, pass_fds)
        except BaseException as error:
            if overlays is not None:
                self.keep_overlays()
            self.close()
            if isinstance(error, OSError):
                raise cannot_start(hardware.name, error) from error
            raise

    def _start(
        self,
        memory: Memory,
        incoming: bool,
        history: bytes,
        pass_fds: Sequence[int],
    ) -> None:
        name = self.hardware.name
        self._stderr = os.memfd_create("qemu-stderr", os.MFD_CLOEXEC)
        self._exit.append(lambda: os.close(self._stderr))
        with contextlib.ExitStack() as theirs:

            def channel() -> tuple[socket.socket, int]:
                ours, other = socket.socketpair()
                # A serial port sends some bytes at a time, which take most of a kilobyte here: soon
                # QEMU, and with it the guest, waits for us. The kernel gives as much as it may.
                other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
                theirs.enter_context(other)
                return ours, other.fileno()

            console, console_fd = channel()
            monitor, monitor_fd = channel()
            agent, agent_fd = channel() if self.hardware.agent else (None, None)
            wiring = Wiring(
                console=console_fd,
                monitor=monitor_fd,
                agent=agent_fd,
                memory=memory,
                overlays=tuple(self.overlays.paths),
                incoming=incoming,
                usb=usb_gateway.command(self.usb_name) if self.hardware.usb else "",
            )
            self.argv = tuple(cmdline.argv(self.hardware, wiring))
            self.console = Console(SocketTransport(console), name=name, history=history)
            self._exit.append(self.console.close)
            self.monitor = Monitor(monitor, name=name)
            self._exit.append(self.monitor.close)
            interruption = self.console.interruption
            self.shell = (
                None if agent is None else AgentShell(agent, name=name, interruption=interruption)
            )
            if self.shell is not None:
                self._exit.append(self.shell.close)
            fds = [fd for fd in (console_fd, monitor_fd, agent_fd) if fd is not None]

            def launch() -> Process:
                self.process = process.start(
                    self.argv,
                    stdout=self._stderr,
                    stderr=self._stderr,
                    pass_fds=[*fds, *pass_fds],
                )
                self._exit.append(self._end_process)
                return self.process

            # What never runs and only carries a state into a file has no memory but that file.
            own = 0 if incoming and memory.shared else self.hardware.memory or 0
            self._seat.room.start(
                name,
                own + OVERHEAD,
                launch,
                timeout=self._seat.timeout,
                progress=self._seat.progress,
                free_idle=self._seat.free_idle,
            )
            # Not before: when there is no room, the console ends and there is no process to ask.
            self.console.subscribe(self._on_console)
        self.monitor.subscribe(self._on_event)
        with self.watching():
            self.monitor.connect(60)

    def remove_overlays(self) -> None:
        self.overlays.remove()

    def keep_overlays(self) -> Overlays:
        """Take the disks out, so that another machine can have them when this one is closed."""
        with self._closing:
            kept, self.overlays = self.overlays, Overlays()
        return kept

    def _on_event(self, event: Event) -> None:
        if event["event"] == "SHUTDOWN":
            self.powered = False
        self.on_event(event)

    def _on_console(self, data: bytes) -> None:
        """The console has ended: who waits for it should hear why."""
        if not data and not self._closed and (died := self.died(wait=0.4)):
            self.console.fail(died)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Turn the loss of a channel into what really happened: QEMU died."""
        try:
            yield
        except (ChannelLost, ConsoleClosed, OutcomeUnknown) as error:
            # The channels end a moment before the process does.
            died = self.died(wait=0.5)
            if died is None:
                raise
            raise died from error

    def died(self, *, wait: float = 0.0) -> MachineDied | None:
        """What to say if QEMU has ended by itself; None while it runs, or was switched off."""
        if self._closed or not self.powered or self.process.wait(wait) is None:
            return None
        stderr = self.stderr()
        return MachineDied(
            self.hardware.name,
            argv=self.argv,
            exit_code=self.process.exit_code,
            stderr=stderr,
            console=self.console.tail(10),
            mend=_mend(stderr),
        )

    def stderr(self) -> str:
        """The end of what QEMU said beside the console."""
        size = os.fstat(self._stderr).st_size
        start = max(0, size - _STDERR_LIMIT)
        return os.pread(self._stderr, _STDERR_LIMIT, start).decode(errors="replace")

    def forwarded_ports(self) -> list[tuple[str, int, int]]:
        """(protocol, host port, guest port) of every forward."""
        with self.watching():
            text = self.monitor.execute("human-monitor-command", {"command-line": "info usernet"})
        return cmdline.forwarded_ports(text)

    def _end_process(self) -> None:
        self.process.end()
        self._seat.room.leave(self.process)

    def close(self) -> None:
        """Kill it and free all that it held. May be called twice, from any thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        with contextlib.ExitStack() as stack:
            for action in self._exit:
                stack.callback(action)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _ignore(_event: Event) -> None:
    pass


def cannot_start(name: str, error: OSError) -> MachineError:
    """The host refused what every machine needs; that says nothing about a template."""
    mend = ""
    if error.errno in (errno.EMFILE, errno.ENFILE):
        mend = "allow more open files: ulimit -n"
    return MachineError(f"the machine {name} cannot be started: {error}", mend=mend)


_MENDS = (
    ("Could not access KVM", "use --hil-accel=tcg, or get access: usermod -aG kvm $USER"),
    ("failed to initialize kvm", "use --hil-accel=tcg"),
    ("MSR", "this host's KVM does not work for guests: use --hil-accel=tcg"),
    ("is not a valid device model", "this QEMU lacks that device; `pytest-hil doctor` says more"),
    ("unsupported machine type", "`pytest-hil doctor` lists what this QEMU has"),
    ("Cannot allocate memory", "ask for less memory=, or run fewer machines at once"),
    ("No space left on device", "free some disk"),
)


def _mend(stderr: str) -> str:
    return next((mend for sign, mend in _MENDS if sign in stderr), "")
