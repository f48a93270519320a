"""The Target contract: what a test may ask of a machine or a board.

One class, several backends (``qemu/``, later ``board/``); the same contract tests
run against each. What a target does not have raises :class:`Unsupported`, and
``features`` says so beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pytest_hil.errors import Unsupported
from pytest_hil.shell.base import Completed

if TYPE_CHECKING:
    from pytest_hil.console.session import Console
    from pytest_hil.errors import HilError
    from pytest_hil.usbip.faults import UsbFault
    from pytest_hil.usbip.urb import Exportable

Command = str | Sequence[str]

__all__ = [
    "Attached",
    "Command",
    "Completed",
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

        It ends with this one, or when it is closed.
        """

    @abstractmethod
    def forward(self, guest_port: int, protocol: str = "tcp") -> int:
        """The port on 127.0.0.1 that leads to a port of the target (``forwards=[…]``)."""

    @abstractmethod
    def close(self) -> None:
        """End it and free everything it holds. May be called twice."""


class Opened(Target):
    """A target as the one who opened it sees it."""

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
