"""What tests of devices share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from pytest_hil.usbip.device import VirtualDevice
from pytest_hil.usbip.messages import Bytes, Direction, IsoPacket, Submit
from pytest_hil.usbip.urb import TransferType, Urb

Ended = tuple[int, bytes, int]


class Asker:
    """Gives transfers to a device, as an exporter does, and keeps how they ended."""

    def __init__(self, device: VirtualDevice) -> None:
        self.device = device
        self.ended: dict[int, Ended] = {}
        self.iso: dict[int, Sequence[IsoPacket]] = {}
        self._number = 0
        device.imported()

    def finish(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket], errors: int
    ) -> bool:
        if urb.seqnum in self.ended:
            return False
        self.ended[urb.seqnum] = (status, bytes(data), actual)
        self.iso[urb.seqnum] = iso
        return True

    def disconnect(self) -> None:
        raise AssertionError("nobody asked for that")

    def submit(self, address: int, *, length: int = 0, data: bytes = b"", **more: Any) -> Urb:
        self._number += 1
        way = Direction.IN if address & 0x80 else Direction.OUT
        wire = Submit(self._number, 0, way, address & 0xF, length or len(data), data=data, **more)
        kind = self.device.transfer_type(address & 0xF, way)
        urb = Urb(wire, kind or TransferType.BULK, self)
        self.device.submit(urb)
        return urb

    def control(
        self, kind: int, number: int, value: int = 0, index: int = 0, data: Any = 64
    ) -> Ended:
        out = b"" if isinstance(data, int) else data
        length = data if isinstance(data, int) else len(data)
        setup = bytes((kind, number)) + b"".join(
            each.to_bytes(2, "little") for each in (value, index, length)
        )
        urb = self.submit(kind & 0x80, length=length, data=out, setup=setup)
        return self.ended[urb.seqnum]

    def configure(self) -> None:
        assert self.control(0, 9, 1, data=0)[0] == 0


@pytest.fixture
def ask() -> Callable[[VirtualDevice], Asker]:
    """Makes one who asks a device, as an exporter does."""
    return Asker
