"""The Target contract: what a test may ask of a machine or a board.

One class, several backends (``qemu/``, later ``board/``); the same contract tests
run against each. What a target does not have raises :class:`Unsupported`, and
``features`` says so beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hil.crash_watch import CrashWatch, Expected
from pytest_hil.errors import CommandFailed, CommandTimeout, OutputTooLarge, Unsupported
from pytest_hil.kernel import Kernel
from pytest_hil.shell.base import Completed

if TYPE_CHECKING:
    from pytest_hil.console.session import Console
    from pytest_hil.crash_watch import RulesOf
    from pytest_hil.errors import HilError, InfrastructureError
    from pytest_hil.usbip.faults import UsbFault
    from pytest_hil.usbip.urb import Exportable

Command = str | Sequence[str]

__all__ = [
    "Attached",
    "Command",
    "Completed",
    "Follower",
    "Opened",
    "Power",
    "Snapshot",
    "Target",
    "UsbDevice",
    "UsbPort",
]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of a target to go back to; made by :meth:`Target.snapshot`."""

    name: str
    target: str
    path: str


class Power(Protocol):
    """The target's power switch."""

    def on(self) -> None:
        """Switch it on and wait until it is ready."""

    def off(self) -> None:
        """Take its power away, with no shutdown."""

    def cycle(self) -> None:
        """Off, then on, then ready."""

    def read(self) -> bool:
        """Whether it is on."""


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """A USB device that the target has, in its own words.

    ``port`` is that of its virtual host controller, ``guest_busid`` what its kernel calls the
    device ("1-2"). ``remote`` and ``busid``: the exporter that it is from ("" if nobody knows).
    """

    port: int
    guest_busid: str
    vendor_id: int
    product_id: int
    remote: str
    busid: str
    nodes: tuple[str, ...]


class Attached(Protocol):
    """A USB device that is plugged into the target. A context manager; leaving it detaches."""

    @property
    def device(self) -> Exportable | None:
        """What was attached; None for another exporter's."""

    @property
    def busid(self) -> str:
        """The exporter's name of it."""

    @property
    def port(self) -> int:
        """The port of the target's virtual host controller."""

    @property
    def guest_busid(self) -> str:
        """What the target's kernel calls it: "1-2"."""

    @property
    def nodes(self) -> tuple[str, ...]:
        """Its device nodes: "/dev/ttyACM0", "/dev/input/event1", "/dev/bus/usb/001/002", …"""

    @property
    def seconds(self) -> float:
        """How long it took to be ready."""

    @property
    def lost(self) -> str:
        """Why the target has it no more; "" while it has."""

    def node(self, name: str) -> str:
        """The node whose name begins so ("ttyACM", "event", "sd"). Raises NotThere."""

    def detach(self) -> None:
        """The target lets go of it, of its own accord. Nothing if it has no more."""

    def unplug(self) -> None:
        """Pull it out, whatever the target is doing with it."""

    def replug(self) -> None:
        """Pull it out if it is in, and plug it in again: nodes and bus ids may be others."""

    def __enter__(self) -> Attached:
        """Itself."""

    def __exit__(self, *exc: object) -> None:
        """:meth:`detach`."""


class UsbPort(Protocol):
    """The target's USB: whatever is attached here is gone with a reset, as with any other end."""

    def attach(
        self,
        device: Exportable,
        *,
        faults: Sequence[UsbFault] = (),
        seed: int = 0,
        timeout: float = 30.0,
    ) -> Attached:
        """Plug a device in; returns when the target's kernel is through with it.

        Then its drivers have had their turn and its nodes are there. ``faults``, and the ``seed``
        of those that are random: see :mod:`pytest_hil.usbip.faults`.
        Raises AttachFailed, Unsupported.
        """

    def attach_remote(self, address: str, busid: str, *, timeout: float = 30.0) -> Attached:
        """Plug in a device of another exporter, as this host reaches it: "host:port".

        Raises AttachFailed, Unsupported, and NotThere when nobody answers at that address.
        """

    def list(self) -> Sequence[UsbDevice]:
        """What is attached, as the target has it."""

    def detach(self, which: Attached | int | str | None = None) -> None:
        """Let go of one (also by its port, or by its node), or of all."""

    def log(self, to: Callable[[str], object]) -> Callable[[], None]:
        """Give every event to a function as a line (:mod:`pytest_hil.usbip.events`).

        Returns what ends that.
        """


class Target(ABC):
    """What a test runs on."""

    name: str
    arch: str
    features: frozenset[str]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    @abstractmethod
    def console(self) -> Console:
        """The target's own byte stream, read from its first byte."""

    @property
    @abstractmethod
    def power(self) -> Power:
        """The power switch."""

    @property
    @abstractmethod
    def usb(self) -> UsbPort:
        """Where USB devices are plugged in. Raises Unsupported."""

    @property
    def kernel(self) -> Kernel:
        """Its kernel: version, configuration, taint."""
        if self._kernel is None:
            self._kernel = Kernel(self.name, self._printed, config=self._kernel_config())
        return self._kernel

    # What is known of it, until it may be another one.
    _kernel: Kernel | None = None

    def _printed(self, command: str) -> str:
        return self.run(command, check=False).stdout

    def _kernel_config(self) -> str | None:
        """The text of its kernel's .config, where it is known without asking it."""
        return None

    @abstractmethod
    def crashes(self, match: str = "", *, timeout: float = 10.0) -> Expected:
        """For a test that wants a crash: ``with hil.crashes("KASAN: .* in foo_read") as expected:``

        A crash within, whose title the regular expression ``match`` is found in, is no failure, nor
        is the error of the call that it ended; it is in ``expected.crashes``. When there was none
        ``timeout`` seconds after the block's end, NoCrash is raised.
        """

    @abstractmethod
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
    ) -> Completed:
        """Run a command on the target and wait for its end.

        A string is a shell line (``sh -c``); a sequence is an argv. ``timeout`` is
        in seconds, None for no end; when it is over, the command's whole process
        group is killed. Output is text, decoded as UTF-8 with errors replaced.

        Raises CommandFailed (unless ``check`` is false), CommandTimeout,
        OutputTooLarge (more than ``max_output`` bytes), OutcomeUnknown.
        """

    @abstractmethod
    def put(
        self,
        local: str | PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Copy a file or a directory to the target: checked at both ends, published by rename.

        ``mode`` is the file's mode bits (None: as it is here), ``owner`` its (uid, gid).
        """

    @abstractmethod
    def get(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file or a directory from the target; the same promises as :meth:`put`."""

    @abstractmethod
    def reset(self) -> None:
        """Restart it as a reset button would, and wait until it is ready."""

    def boot(self, stage: str | None = None) -> None:  # noqa: ARG002
        """Bring it to a stage of its boot, such as "bootloader" or "off"; None: to its shell.

        Boards have stages. Raises Unsupported, and StageFailed when it does not get there.
        """
        raise Unsupported(self.name, "boot stages: boards have them")

    @property
    def bootloader(self) -> Any:
        """The bootloader's prompt: ``run(command)``, and its variables as ``env``.

        Raises Unsupported where the target is not at it: :meth:`boot` brings it there.
        """
        raise Unsupported(self.name, "bootloader's prompt: boards have one")

    @abstractmethod
    def snapshot(self, name: str = "") -> Snapshot:
        """Save its whole present state, and go on."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a saved state; what the target did since is forgotten."""

    @abstractmethod
    def fork(self) -> Target:
        """A second target that goes on from this one's present state, independently of it.

        It ends with this one, or when it is closed. Raises Crashed when this one has panicked.
        """

    @abstractmethod
    def forward(self, guest_port: int, protocol: str = "tcp") -> int:
        """The port on 127.0.0.1 that leads to a port of the target (``forwards=[…]``)."""

    @abstractmethod
    def close(self) -> None:
        """End it and free everything it holds. May be called twice."""


class Follower(Protocol):
    """Who goes along with a target to fetch what its programs leave. None of this raises.

    What it runs on the target itself does not come back to it.
    """

    def starting(self) -> Mapping[str, str]:
        """A command is about to run: what it gets beside its own ``env``, which comes first."""

    def ran(self) -> None:
        """A command has ended, and the target answers."""

    def leaving(self, how: str) -> None:
        """What it has in memory is about to go: "reset", "power", "restore", "close"."""

    def entered(self) -> None:
        """It is up again: its console may be another one, its memory is."""


class Opened(Target):
    """A target as the one who opened it sees it."""

    follower: Follower | None = None
    modules: tuple[Path, ...] = ()
    """The kernel modules that were put onto it, as files of this host: their crashes get lines."""
    twins: Sequence[Opened] = ()
    """Those that :meth:`fork` gave, in their order, also when they are closed."""
    on_fork: Callable[[Opened, Opened], object] | None = None
    """Gets this target and a twin, before whoever asked for that does."""
    is_twin = False
    _crash_watch: CrashWatch | None = None

    def _was_put(self, local: str | PathLike[str]) -> None:
        """To be called by :meth:`put`, for each file."""
        path = Path(local).absolute()
        if path.suffix == ".ko" and path.is_file() and path not in self.modules:
            self.modules = (*self.modules, path)

    @property
    def crash_watch(self) -> CrashWatch:
        """What finds its crashes; from its first use on."""
        return self._crash_watch or self.watch_crashes(None)

    def watch_crashes(self, rules: RulesOf | None) -> CrashWatch:
        """:attr:`crash_watch`, which finds these if it is new (None: all that is known)."""
        if self._crash_watch is None:
            self._crash_watch = CrashWatch(rules)
            self._crash_watch.follow(self.console)
        return self._crash_watch

    def follow_restart(self) -> None:
        """If it has restarted by itself, wait until it has its shell again, with all its memory.

        Machines need not do anything for that: their :meth:`run` waits.
        """

    def crashes(self, match: str = "", *, timeout: float = 10.0) -> Expected:
        return self.crash_watch.expect(match, timeout=timeout)

    @contextmanager
    def _followed(self, env: Mapping[str, str] | None) -> Iterator[Mapping[str, str] | None]:
        """Around a command: what it gets as its environment."""
        follower = self.follower
        if follower is None:
            yield env
            return
        try:
            yield {**follower.starting(), **(env or {})}
        except (CommandFailed, CommandTimeout, OutputTooLarge):
            follower.ran()
            raise
        follower.ran()

    def _leaving(self, how: str) -> None:
        self._kernel = None
        if self._crash_watch is not None:
            # Of a crash that it has said already somebody is to know before, not after.
            self._crash_watch.read()
        if self.follower is not None:
            self.follower.leaving(how)

    def _entered(self) -> None:
        if self._crash_watch is not None:
            self._crash_watch.follow(self.console)
        if self.follower is not None:
            self.follower.entered()

    @property
    @abstractmethod
    def origin_text(self) -> str:
        """How it came to be, for people."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""

    @abstractmethod
    def died(self) -> HilError | None:
        """What ended it, if it has ended by itself."""

    def broke(self, error: InfrastructureError) -> None:
        """A test that used it, and nothing else, ended with this error of our side."""

    @abstractmethod
    def record(
        self,
        directory: Path,
        *,
        events: Callable[..., None] | None = None,
        qmp: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        """Write what it says into a directory, from its first byte on.

        ``events`` gets (kind, **facts) of what happens to it, ``qmp`` a machine's QMP traffic.
        """
