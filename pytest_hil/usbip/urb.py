"""A transfer on its way through a device, and what is asked of a device that is exported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum, unique
from typing import Protocol

from pytest_hil.usbip.messages import (
    NO_ENDPOINT,
    STALL,
    Bytes,
    Device,
    Direction,
    IsoPacket,
    Submit,
)

# An enumeration's members are slow to look up (in Python 3.11), and this is for every transfer.
_IN = Direction.IN


@unique
class TransferType(IntEnum):
    """As in an endpoint descriptor's bmAttributes (USB 2.0, table 9-13)."""

    CONTROL = 0
    ISO = 1
    BULK = 2
    INTERRUPT = 3


class Owner(Protocol):
    """Who gave a URB to a device: takes its end. Any thread may call."""

    def finish(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket], errors: int
    ) -> bool:
        """Its end; False when it came too late: the URB was unlinked, or its importer is gone."""

    def disconnect(self) -> None:
        """Drop the importer, in the middle of whatever it does."""


class Urb:
    """One transfer. A device ends it once, by :meth:`complete`, at once or later, in any thread.

    ``endpoint`` is 0 to 15, ``address`` has the direction in bit 7 too; ``data`` what an OUT
    brought; ``length`` how much an IN may bring at most; ``setup`` a control transfer's eight
    bytes; ``iso`` the packets of an isochronous one.
    """

    __slots__ = (
        "address",
        "data",
        "direction",
        "endpoint",
        "flags",
        "interval",
        "iso",
        "length",
        "owner",
        "seqnum",
        "setup",
        "start_frame",
        "type",
    )

    def __init__(self, submit: Submit, kind: TransferType, owner: Owner) -> None:
        self.seqnum = submit.seqnum
        self.endpoint = submit.endpoint
        self.address = submit.endpoint | submit.direction << 7
        self.direction = submit.direction
        self.length = submit.length
        self.data = submit.data
        self.setup = submit.setup
        self.flags = submit.flags
        self.interval = submit.interval
        self.start_frame = submit.start_frame
        self.iso = submit.iso
        self.type = kind
        self.owner = owner

    def __repr__(self) -> str:
        way = self.direction.name
        return f"<Urb {self.seqnum} {self.type.name} {way} ep{self.endpoint} {self.length} bytes>"

    def complete(
        self,
        data: Bytes = b"",
        *,
        status: int = 0,
        actual: int | None = None,
        iso: Sequence[IsoPacket] = (),
        errors: int = 0,
    ) -> bool:
        """End it. ``data`` is what an IN brings; ``actual`` defaults to its length, or to all of an
        OUT's. False when it was too late: it had been unlinked, or the importer is gone.

        ``data`` longer than was asked for is cut and the status becomes −EOVERFLOW (babble).
        ``iso``: the packets with their actual lengths and statuses; ``data`` then holds just the
        actual bytes of each, one after the other.
        """
        if actual is None:
            if self.direction is _IN:
                actual = len(data)
            elif status == 0:
                actual = self.length
            else:
                actual = 0
        return self.owner.finish(self, status, data, actual, iso, errors)

    def stall(self) -> bool:
        """The endpoint says no."""
        return self.complete(status=STALL)

    def disconnect(self) -> None:
        """Drop the importer that this transfer came from."""
        self.owner.disconnect()


class Exportable(Protocol):
    """A device that an exporter can offer: Python, a real one, or another exporter's.

    All calls come from one thread, the exporter's, and must not wait.
    """

    def describe(self) -> Device:
        """What it is. Its bus id, bus number, device number and path are the exporter's to set."""

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        """What kind an endpoint is now (alternate settings change it); None: there is none.

        The wire does not say it. Endpoint 0 is always CONTROL.
        """

    def plugged(self, unplug: Callable[[], None]) -> None:
        """It is exported now. ``unplug()`` takes it away again (any thread)."""

    def imported(self) -> None:
        """An importer has it from now on: it begins as after a reset, unconfigured."""

    def submit(self, urb: Urb) -> None:
        """A transfer to do."""

    def cancel(self, urb: Urb) -> None:
        """Forget a transfer: it was unlinked, or the importer is gone. It is not completed."""

    def released(self) -> None:
        """The importer is gone; every transfer of its was cancelled before."""


def refuse(urb: Urb) -> bool:
    """There is no such endpoint."""
    return urb.complete(status=NO_ENDPOINT)
