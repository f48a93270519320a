"""The Target contract on a QEMU machine."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.console.capture import Mark
from pytest_hil.console.session import Console
from pytest_hil.errors import (
    ChannelLost,
    Crashed,
    InfrastructureError,
    MachineError,
    NotThere,
    OutcomeUnknown,
    Unsupported,
)
from pytest_hil.qemu import boot, features, runtime, state, template
from pytest_hil.qemu.factory import Factory, Origin
from pytest_hil.qemu.machine import Machine
from pytest_hil.qemu.monitor import Event
from pytest_hil.qemu.power import MachinePower
from pytest_hil.shell.agent import AgentShell
from pytest_hil.shell.agent_command import Follow
from pytest_hil.target import Command, Completed, Opened, Snapshot

if TYPE_CHECKING:
    from pytest_hil.attach.usb import Usb
    from pytest_hil.qemu.hardware import Hardware

Events = Callable[..., None]


def _no_events(_kind: str, **_facts: object) -> None:
    pass


# What happens to a machine that its USB devices do not outlive, and why they are gone.
_USB_ENDS = {"RESET": "its machine restarted", "SHUTDOWN": "its machine was switched off"}


class Restarted(OutcomeUnknown):
    """The machine restarted; a new session with its agent clears this."""


class Guest(Opened):
    """A target that is a QEMU machine.

    The machine behind it changes when it is restored or power-cycled; the target stays.
    ``events`` gets (kind, **facts) of what happens to it.
    """

    def __init__(
        self,
        factory: Factory,
        machine: Machine,
        origin: Origin,
        *,
        boot_timeout: float = 60.0,
        events: Events = _no_events,
    ) -> None:
        self._factory = factory
        self._boot_timeout = boot_timeout
        self._events = events
        self._record_to: Path | None = None
        self._qmp_log: Callable[[dict[str, Any]], None] | None = None
        self._saved: Path | None = None
        self._closed = False
        self._reset_at: Mark | None = None
        # Where the console was before a reset that was asked for.
        self._resetting: Mark | None = None
        self.origin = origin
        hardware = machine.hardware
        self.name = hardware.name
        self.arch = hardware.arch
        self.features = features.of(factory.plan)
        self._power = MachinePower(self)
        self._usb: Usb | None = None
        self._usb_lock = threading.Lock()
        self._adopt(machine)

    # --- the machine behind it ---

    @property
    def machine(self) -> Machine:
        """The QEMU machine of this moment."""
        return self._machine

    def _adopt(self, machine: Machine) -> None:
        """Make a machine the one that this target is."""
        self._machine = machine
        if self._usb is not None:
            self._usb.lost("its machine was replaced: restored, or switched on anew")
        self._reset_at = None
        machine.monitor.log = self._qmp_log
        machine.on_event = self._on_event
        if self._record_to is not None:
            machine.console.record(self._record_to)
        self._entered()
        if self._closed:
            # By another thread, which has closed the machine before this one.
            machine.close()
            raise MachineError(f"the target {self.name} was closed")

    def _on_event(self, event: Event) -> None:
        """Called from the monitor's thread: must not wait."""
        name = event["event"]
        data = event.get("data", {})
        self._events("qmp", event=name, **data)
        shell = self._machine.shell
        if name == "RESET":
            # The event may come after the first words that follow the reset: when we asked for it,
            # what counts is where the console was before.
            self._reset_at = self._resetting or self._machine.console.mark()
        if self._usb is not None and name in _USB_ENDS:
            self._usb.lost(_USB_ENDS[name])
        if name == "RESET" and shell is not None:
            shell.fail(Restarted(f"the machine {self.name} restarted while a command ran"))
        elif name in ("GUEST_PANICKED", "GUEST_CRASHLOADED") and shell is not None:
            shell.fail(Crashed(f"the kernel of the machine {self.name} panicked"))
        elif name == "SHUTDOWN" and shell is not None:
            shell.fail(ChannelLost(f"the machine {self.name} was switched off"))

    def record(
        self,
        directory: Path,
        *,
        events: Events | None = None,
        qmp: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Write what it says into a directory, from its first byte on."""
        if events is not None:
            self._events = events
        self._qmp_log = qmp
        self._machine.monitor.log = qmp
        self._record_to = directory
        self._machine.console.record(directory)
        if self._usb is not None:
            self._usb.record(directory)

    def tell(self, kind: str, **facts: object) -> None:
        """Something happened to it, or to what is connected to it."""
        self._events(kind, **facts)

    # --- the contract ---

    @property
    def console(self) -> Console:
        return self._machine.console

    @property
    def power(self) -> MachinePower:
        return self._power

    @property
    def usb(self) -> Usb:
        if not self._machine.hardware.usb:
            raise Unsupported(self.name, "USB", mend=_no_usb(self._machine.hardware))
        with self._usb_lock:
            if self._usb is None:
                # Most tests plug nothing in: they need not load it.
                from pytest_hil.attach.usb import Usb
                from pytest_hil.qemu.usb_link import GuestLink

                self._usb = Usb(GuestLink(self))
                if self._record_to is not None:
                    self._usb.record(self._record_to)
                if self._closed:
                    self._usb.close()
            return self._usb

    @property
    def origin_text(self) -> str:
        """How its machine came to be, for people."""
        return self.origin.how + (f" ({self.origin.why})" if self.origin.why else "")

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = 64 * 2**20,
        follow: Follow | None = None,
    ) -> Completed:
        with self._followed(env) as env, self._shell("run a command") as shell:
            return shell.run(
                command,
                check=check,
                timeout=timeout,
                input=input,
                env=env,
                cwd=cwd,
                max_output=max_output,
                follow=follow,
            )

    def put(
        self,
        local: str | PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        with self._shell("put a file") as shell:
            shell.put(local, remote, mode=mode, owner=owner)
        self._was_put(local)

    def get(self, remote: str, local: str | PathLike[str]) -> None:
        with self._shell("get a file") as shell:
            shell.get(remote, local)

    def _kernel_config(self) -> str | None:
        path = self._factory.plan.kernel_config
        return None if path is None else path.read_text()

    def forward(self, guest_port: int, protocol: str = "tcp") -> int:
        """The port on 127.0.0.1 that leads to a port of the guest (``forwards`` in boards.toml)."""
        for found, host, guest in self._machine.forwarded_ports():
            if (found, guest) == (protocol, guest_port):
                return host
        raise Unsupported(
            self.name,
            f"forward to the guest's port {guest_port}/{protocol}",
            mend=f"add it: forwards = [{guest_port}] in boards.toml, "
            f"or @pytest.mark.hil(forwards=[{guest_port}])",
        )

    def reset(self) -> None:
        self._must_be_on("reset")
        self._leaving("reset")
        self._events("reset")
        machine = self._machine
        self._resetting = machine.console.mark()
        try:
            with machine.watching(), machine.monitor.waiter("RESET") as waiter:
                machine.monitor.execute("system_reset")
                waiter.wait(10)
            self._come_up()
        finally:
            self._resetting = None

    def snapshot(self, name: str = "") -> Snapshot:
        self._must_save("snapshot")
        self._no_usb_attached()
        if self._saved is None:
            self._saved = runtime.directory("snapshots")
        readable = re.sub(r"[^\w.-]", "_", name)[:40] or "snapshot"
        directory = Path(tempfile.mkdtemp(prefix=f"{readable}-", dir=self._saved))
        try:
            self.save(directory)
        finally:
            if self._closed:
                runtime.remove(self._saved)  # by another thread, which could not remove it all
        return Snapshot(name=name or directory.name, target=self.name, path=str(directory))

    def save(self, directory: Path) -> None:
        """Save the present state into an empty directory, and go on.

        Raises Unsupported while USB devices are attached.
        """
        began = time.monotonic()
        self._must_be_on("save its state")
        self._no_usb_attached()
        self._after_restart()
        try:
            state.save_live(self._machine, directory, self._factory.seat)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        self._events("snapshot", path=str(directory), seconds=round(time.monotonic() - began, 3))

    def restore(self, snapshot: Snapshot) -> None:
        self._must_save("restore")
        if snapshot.target != self.name:
            raise NotThere(
                f"the snapshot {snapshot.name} is of the target {snapshot.target}, "
                f"not of {self.name}"
            )
        if not Path(snapshot.path).is_dir():
            raise NotThere(
                f"the snapshot {snapshot.name} is gone: the target that it was made of is closed"
            )
        self._leaving("restore")
        machine = self._factory.resume(Path(snapshot.path), give_way=self._give_way)
        old, self.origin = self._machine, Origin("snapshot", snapshot.name)
        old.close()
        self._adopt(machine)
        self._events("restore", snapshot=snapshot.name)

    def fork(self) -> Guest:
        """A second target that goes on from this one's present state, independently.

        It has randomness and a clock of its own, and the same name as this one. It ends with this
        one, or when it is closed. Raises Crashed when it has panicked: so would have the twin.
        """
        shell = self._machine.shell
        if shell is not None and isinstance(shell.reason, Crashed):
            raise shell.reason.with_traceback(None)
        saved = state.State(Path(self.snapshot("fork").path))
        try:
            machine = self._factory.resume(saved.path)
        finally:
            # Only its disks stay, which the twin's lie on: it may be saved in its turn.
            saved.memory.unlink(missing_ok=True)
        twin = Guest(
            self._factory, machine, Origin("snapshot", "fork"), boot_timeout=self._boot_timeout
        )
        twin.is_twin = True
        self.twins = (*self.twins, twin)
        if self._closed:
            twin.close()
            raise MachineError(f"the target {self.name} was closed")
        self._events("fork")
        if self.on_fork is not None:
            self.on_fork(self, twin)
        return twin

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def close(self) -> None:
        if self._closed:
            return
        self._leaving("close")
        self._closed = True
        with ExitStack() as everything:
            if self._saved is not None:
                everything.callback(runtime.remove, self._saved)
            everything.callback(self._machine.close)
            if self._usb is not None:
                everything.callback(self._usb.close)
            for twin in self.twins:
                everything.callback(twin.close)

    def died(self) -> InfrastructureError | None:
        """Why the machine is gone, if it went by itself and nobody switched it off."""
        return None if self._closed else self._machine.died()

    # --- how ---

    @contextmanager
    def _shell(self, what: str) -> Iterator[AgentShell]:
        if self._machine.shell is None:
            raise Unsupported(
                self.name,
                f"shell to {what} with: no agent runs on it",
                mend="it has a console (hil.console) and power (hil.power)",
            )
        self._must_be_on(what)
        self._after_restart()
        with self._machine.watching():
            yield self._machine.shell

    def _after_restart(self) -> None:
        """If it restarted by itself, wait until it is ready again."""
        shell = self._machine.shell
        if shell is not None and isinstance(shell.reason, Restarted):
            self._come_up()

    def _come_up(self) -> None:
        """It restarted: wait until it is ready again."""
        deadline = time.monotonic() + self._boot_timeout
        while True:
            left = max(0.1, deadline - time.monotonic())
            if self._reset_at is not None:
                # What it said before, of a panic perhaps, says nothing about how it comes up.
                self._machine.console.skip(self._reset_at)
            try:
                template.wait_with_progress(
                    self._machine, self._factory.plan, self._factory.seat.progress, left
                )
                break
            except Restarted:
                # SeaBIOS answers a reset with a second one (its handle_post, HaveRunPost).
                continue
        if self._machine.shell is not None:
            boot.personalise(self._machine)

    def _must_be_on(self, what: str) -> None:
        if self._closed:
            raise NotThere(f"the target {self.name} is closed: it cannot {what}")
        if not self._machine.powered:
            raise self._is_off(what)

    def _is_off(self, what: str) -> NotThere:
        return NotThere(
            f"the target {self.name} is switched off: it cannot {what}",
            mend="hil.power.on() switches it on",
        )

    def _must_save(self, what: str) -> None:
        if not self._factory.plan.can_save:
            raise Unsupported(
                self.name, f"{what}: only machines with an agent can be saved and restored"
            )

    def _no_usb_attached(self) -> None:
        if self._usb is not None:
            self._usb.must_be_free("save its state")

    def _give_way(self) -> bool:
        """The host is full: end the machine that is about to be replaced. Whether it lived."""
        if not self._machine.powered:
            return False
        self.switch_off()
        return True

    def switch_off(self) -> None:
        """Take its power: QEMU ends at once, its disks stay as they are."""
        if not self._machine.powered:
            return
        self._leaving("power")
        self._machine.powered = False
        self._events("power", on=False)
        machine = self._machine
        machine.console.fail(self._is_off("be talked to by its console"))
        if machine.shell is not None:
            machine.shell.fail(ChannelLost(f"the machine {self.name} was switched off"))
        if self._usb is not None:
            self._usb.lost("its machine was switched off")
        machine.process.end()

    def switch_on(self) -> None:
        """Boot it with the disks that it had."""
        if self._machine.powered:
            return
        self._events("power", on=True)
        old = self._machine
        old.process.end()
        history = old.console.raw_after(0)[1]
        disks = old.overlays
        machine = Machine(old.hardware, self._factory.seat, overlays=disks, history=history)
        old.keep_overlays()
        old.close()
        try:
            self.origin = Origin("boot", "power on")
            self._adopt(machine)
            self._come_up()
        except BaseException:
            self.switch_off()
            raise


def _no_usb(hardware: Hardware) -> str:
    if not hardware.agent:
        return "USB devices are attached through the agent in the machine, and it has none"
    if hardware.network == "none":
        return 'they come over its network: write network = "isolated", or leave it out'
    return (
        "its image is the user's own: if it has usbip and vhci_hcd, say so in boards.toml: "
        'features = ["usb"]'
    )
