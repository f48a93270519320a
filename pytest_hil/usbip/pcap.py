"""Transfers into a file for Wireshark: pcap, link type 220 (LINUX_USB_MMAPPED).

Records are those of Linux's usbmon (Documentation/usb/usbmon.rst, ``struct usbmon_packet``): a
header of 64 bytes in this host's byte order, isochronous descriptors, data.
"""

from __future__ import annotations

import errno
import itertools
import os
import struct
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from pytest_hil.usbip.messages import Bytes, Device, Direction, IsoPacket
from pytest_hil.usbip.urb import TransferType, Urb

LINK_TYPE = 220
MiB = 2**20

_FILE = struct.Struct("=IHHiIII")
_RECORD = struct.Struct("=IIII")
_PACKET = struct.Struct("=QBBBBHBBqiiII8siiII")
_ISO = struct.Struct("=iIII")
_COUNTS = struct.Struct("=ii")

_MAGIC = 0xA1B2C3D4
# usbmon's own numbers for the types.
_TYPES = {
    TransferType.ISO: 0,
    TransferType.INTERRUPT: 1,
    TransferType.CONTROL: 2,
    TransferType.BULK: 3,
}
_NONE = b"\0"

assert _PACKET.size == 64, sys.byteorder


class Capture:
    """Writes what it observes as it happens; any thread may call, and for several devices.

    Data of a transfer are kept up to ``snaplen`` bytes. At ``limit`` bytes the file ends, and
    ``truncated`` is true. Raises OSError when the file cannot be made; what fails later ends the
    capture as the limit does.
    """

    def __init__(self, path: Path, *, snaplen: int = 65536, limit: int = 64 * MiB) -> None:
        self.path = path
        self.truncated = False
        self._snaplen = snaplen
        self._limit = limit
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        # Of the transfers under way: their number in the file, bus and device.
        self._open: dict[Urb, tuple[int, int, int]] = {}
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        self._size = 0
        longest = _PACKET.size + snaplen
        self._put(_FILE.pack(_MAGIC, 2, 4, 0, 0, longest, LINK_TYPE))

    def submitted(self, urb: Urb, description: Device) -> None:
        """A transfer was asked for."""
        place = (next(self._numbers), description.busnum & 0xFFFF, description.devnum & 0x7F)
        with self._lock:
            if self._fd < 0:
                return
            self._open[urb] = place
            out = urb.direction is Direction.OUT
            control = urb.type is TransferType.CONTROL
            union = urb.setup if control else _COUNTS.pack(0, len(urb.iso))
            self._record(
                urb,
                place,
                b"S",
                -errno.EINPROGRESS,
                urb.length,
                urb.data if out else b"",
                union,
                urb.iso,
                setup=control,
            )

    def completed(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket]
    ) -> None:
        """A transfer ended."""
        with self._lock:
            place = self._open.pop(urb, None)
            if place is None or self._fd < 0:
                return
            came = data if urb.direction is Direction.IN else b""
            bad = sum(1 for packet in iso if packet.status)
            union = _COUNTS.pack(bad, len(iso))
            packets = _packed(iso) if urb.direction is Direction.IN else iso
            self._record(urb, place, b"C", status, actual, came, union, packets)

    def _record(
        self,
        urb: Urb,
        place: tuple[int, int, int],
        event: bytes,
        status: int,
        length: int,
        data: Bytes,
        union: bytes,
        iso: Sequence[IsoPacket],
        *,
        setup: bool = False,
    ) -> None:
        number, bus, device = place
        descriptors = b"".join(
            _ISO.pack(one.status, one.offset, one.actual if event == b"C" else one.length, 0)
            for one in iso
        )
        kept = bytes(data[: self._snaplen])
        without = b"<" if urb.direction is Direction.IN else b">"
        now = time.time_ns()
        head = _PACKET.pack(
            number,
            ord(event),
            _TYPES[urb.type],
            urb.address,
            device,
            bus,
            ord(_NONE if setup else b"-"),
            ord(_NONE if data else without),
            now // 10**9,
            now % 10**9 // 1000,
            status,
            length,
            len(data) + len(descriptors),
            union,
            urb.interval,
            urb.start_frame,
            urb.flags & 0xFFFFFFFF,
            len(iso),
        )
        whole = len(head) + len(descriptors) + len(data)
        body = head + descriptors + kept
        stamp = (now // 10**9, now % 10**9 // 1000)
        self._put(_RECORD.pack(*stamp, len(body), whole) + body)

    def _put(self, data: bytes) -> None:
        """One write a record: who is killed in the middle leaves whole ones."""
        if self._size + len(data) > self._limit:
            self._end(truncated=True)
            return
        try:
            self._size += os.write(self._fd, data)
        except OSError:
            self._end(truncated=True)

    def _end(self, *, truncated: bool) -> None:
        self.truncated = self.truncated or truncated
        fd, self._fd = self._fd, -1
        self._open.clear()
        if fd >= 0:
            os.close(fd)

    def close(self) -> None:
        """End the file. May be called twice."""
        with self._lock:
            self._end(truncated=False)


def _packed(iso: Sequence[IsoPacket]) -> list[IsoPacket]:
    """With the offsets that the packets' data have when nothing is between them."""
    found, at = [], 0
    for packet in iso:
        found.append(IsoPacket(at, packet.length, packet.actual, packet.status))
        at += packet.actual
    return found
