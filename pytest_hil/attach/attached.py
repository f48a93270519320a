"""A USB device that is plugged into a target."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Protocol

from pytest_hil.attach.script import Answer
from pytest_hil.errors import HilError, NotThere

if TYPE_CHECKING:
    from pytest_hil.attach.usb import Usb
    from pytest_hil.usbip.urb import Exportable


class Source(Protocol):
    """Where a device comes from: our exporter, or another's."""

    busid: str
    text: str
    """Whose it is: another exporter's "host:port"; "" for ours."""

    @property
    def device(self) -> Exportable | None:
        """The device, if it is ours."""

    @property
    def over(self) -> str:
        """Why it can be used no more; "" while it can."""

    def offer(self) -> None:
        """Make it ready to be taken."""

    def arrived(self, connection: socket.socket, peer: str) -> None:
        """The target has come for it. The connection is its own from now on."""

    def withdraw(self) -> None:
        """End it for whoever has it. May be called twice."""

    def heard(self, error: str) -> None:
        """The exporter says that a handler of the device raised."""

    def troubles(self) -> str:
        """What went wrong on this side."""


class AttachedDevice:
    """See :class:`pytest_hil.target.Attached`."""

    def __init__(self, usb: Usb, source: Source, timeout: float) -> None:
        self._usb = usb
        self._timeout = timeout
        self._lock = threading.RLock()
        self._answer = Answer()
        self._lost = ""
        self.source = source
        self.seconds = 0.0

    def __repr__(self) -> str:
        state = f"not attached: {self.lost}" if self.lost else f"{self.guest_busid}"
        return f"<Attached {self.busid} {state}>"

    @property
    def device(self) -> Exportable | None:
        return self.source.device

    @property
    def busid(self) -> str:
        return self.source.busid

    @property
    def port(self) -> int:
        return self._answer.port

    @property
    def guest_busid(self) -> str:
        return self._answer.guest_busid

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(self._answer.nodes)

    @property
    def interfaces(self) -> dict[str, str]:
        """Each interface ("1.0") and the target's driver for it ("" if none took it)."""
        return dict(self._answer.interfaces)

    @property
    def phases(self) -> list[tuple[str, float]]:
        """How the target came to have it: (name, its uptime in seconds)."""
        return list(self._answer.phases)

    @property
    def lost(self) -> str:
        return self._lost or self.source.over

    def node(self, name: str) -> str:
        if self.lost:
            raise NotThere(f"the device {self.busid} is not attached any more: {self.lost}")
        short = name.rpartition("/")[2]
        for path in self.nodes:
            if path.rpartition("/")[2].startswith(short):
                return path
        raise NotThere(
            f"the device {self.busid} has no node {name}*; its nodes: {', '.join(self.nodes)}"
        )

    def detach(self) -> None:
        with self._lock:
            if not self._lost:
                self._usb.detach_device(self, self._timeout)

    def unplug(self) -> None:
        with self._lock:
            if not self._lost:
                self._usb.unplug_device(self, self._timeout)

    def replug(self) -> None:
        with self._lock:
            self.unplug()
            self._lost = ""
            self._usb.plug_device(self, self._timeout)

    def __enter__(self) -> AttachedDevice:
        return self

    def __exit__(self, *exc: object) -> None:
        # What went wrong before is the better news.
        with contextlib.suppress(HilError) if any(exc) else contextlib.nullcontext():
            self.detach()

    # --- for the port ---

    def ready(self, answer: Answer, seconds: float) -> None:
        self._answer = answer
        self.seconds = seconds

    def lose(self, why: str) -> bool:
        """It is gone; False when it was already."""
        first, self._lost = not self._lost, self._lost or why
        return first
