"""The capture follows the test that uses the target."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

from pytest_hil.attach.capture import NAME, Tap
from pytest_hil.usbip.messages import Bytes, Device, Direction, IsoPacket, Speed, Submit
from pytest_hil.usbip.urb import TransferType, Urb

DEVICE = Device("1-1", 1, 2, Speed.HIGH, 0x1209, 1)


class Nobody:
    """The owner of transfers that nobody waits for."""

    def finish(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket], errors: int
    ) -> bool:
        return True

    def disconnect(self) -> None: ...


def transfer(tap: Tap) -> None:
    """One bulk OUT of four bytes, from beginning to end."""
    urb = Urb(
        Submit(1, DEVICE.devid, Direction.OUT, 1, 4, data=b"data"), TransferType.BULK, Nobody()
    )
    tap.submitted(urb, DEVICE)
    tap.completed(urb, 0, b"", 4, ())


def packets(path: Path) -> int:
    """How many records a pcap file has (its header has 24 bytes, a record's 16)."""
    data, at, count = path.read_bytes(), 24, 0
    assert data[20:24] == struct.pack("<I", 220)
    while at < len(data):
        at += 16 + struct.unpack_from("<4I", data, at)[2]
        count += 1
    assert at == len(data)
    return count


def test_each_directory_has_its_own(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    one.mkdir()
    two.mkdir()
    tap = Tap()
    transfer(tap)  # nobody records yet
    tap.record(one)
    assert list(one.iterdir()) == []  # not before there is something
    transfer(tap)
    transfer(tap)
    tap.record(two)
    transfer(tap)
    tap.close()
    tap.close()
    transfer(tap)
    assert packets(one / NAME) == 4
    assert packets(two / NAME) == 2


def test_trouble_with_the_disk_is_no_trouble_of_the_transfer(tmp_path: Path) -> None:
    tap = Tap()
    tap.record(tmp_path / "nowhere")
    transfer(tap)
    transfer(tap)
    tap.close()
