"""A SCSI disk: command blocks in, data and sense out. No USB, no clock.

Sources: SPC-4 (commands of all devices, sense), SBC-3 (commands of disks).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

# Operation codes.
TEST_UNIT_READY, REQUEST_SENSE, INQUIRY = 0x00, 0x03, 0x12
READ_6, WRITE_6, READ_10, WRITE_10 = 0x08, 0x0A, 0x28, 0x2A
READ_12, WRITE_12, READ_16, WRITE_16 = 0xA8, 0xAA, 0x88, 0x8A
MODE_SENSE_6, MODE_SENSE_10, START_STOP, PREVENT = 0x1A, 0x5A, 0x1B, 0x1E
READ_FORMAT_CAPACITIES, READ_CAPACITY_10, SERVICE_IN_16 = 0x23, 0x25, 0x9E
VERIFY_10, SYNCHRONIZE_10, SYNCHRONIZE_16, REPORT_LUNS = 0x2F, 0x35, 0x91, 0xA0

_FORMS = {
    READ_6: "6",
    WRITE_6: "6",
    READ_10: "10",
    WRITE_10: "10",
    READ_12: "12",
    WRITE_12: "12",
    READ_16: "16",
    WRITE_16: "16",
}
_WRITES = frozenset({WRITE_6, WRITE_10, WRITE_12, WRITE_16})


@dataclass(frozen=True, slots=True)
class Sense:
    """Sense key, additional code and qualifier (SPC-4, 4.5.6 and annex D)."""

    key: int
    code: int
    qualifier: int = 0

    def pack(self) -> bytes:
        """18 bytes, fixed format, current."""
        return struct.pack(">BBBIB4xBB4x", 0x70, 0, self.key, 0, 10, self.code, self.qualifier)


NO_SENSE = Sense(0, 0)
NOT_PRESENT = Sense(0x2, 0x3A)
WRITE_ERROR = Sense(0x3, 0x0C)
READ_ERROR = Sense(0x3, 0x11)
INVALID_COMMAND = Sense(0x5, 0x20)
OUT_OF_RANGE = Sense(0x5, 0x21)
INVALID_FIELD = Sense(0x5, 0x24)
REMOVAL_PREVENTED = Sense(0x5, 0x53, 0x02)
MEDIUM_CHANGED = Sense(0x6, 0x28)
WRITE_PROTECTED = Sense(0x7, 0x27)


class CheckCondition(Exception):
    """The command failed; the host asks for ``sense``."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(f"sense {sense.key:x}/{sense.code:02x}/{sense.qualifier:02x}")
        self.sense = sense


class Medium(Protocol):
    """Where the blocks are. What it raises as OSError becomes a medium error."""

    size: int

    def read(self, offset: int, length: int) -> memoryview:
        """Bytes of it; valid until the next call."""

    def write(self, offset: int, data: memoryview) -> None: ...

    def flush(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Read:
    """The command reads so much of the medium."""

    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Write:
    """The command writes so much of the medium."""

    offset: int
    length: int


Answer = bytes | Read | Write


class Disk:
    """A direct-access device. ``medium`` None: there is none in it."""

    def __init__(
        self,
        medium: Medium | None,
        *,
        block_size: int = 512,
        read_only: bool = False,
        removable: bool = True,
        serial: str = "",
        vendor: str = "HIL",
        product: str = "Virtual stick",
    ) -> None:
        self.medium = medium
        self.block_size = block_size
        self.read_only = read_only
        self.removable = removable
        self.locked = False
        self.sense = NO_SENSE
        self._serial = serial
        self._names = (vendor, product)
        self._attention: Sense | None = None
        # The medium that the host ejected, until somebody inserts one.
        self.on_eject: Callable[[], None] = lambda: None

    @property
    def blocks(self) -> int:
        return 0 if self.medium is None else self.medium.size // self.block_size

    def change(self, medium: Medium | None) -> None:
        """Insert another medium, or none; the host is told with its next command."""
        self.medium = medium
        self._attention = MEDIUM_CHANGED if medium is not None else None

    def command(self, block: bytes) -> Answer:
        """What a command block is answered with. Raises CheckCondition; ``sense`` says why then."""
        block = block.ljust(16, b"\0")
        code = block[0]
        if code not in (INQUIRY, REQUEST_SENSE, REPORT_LUNS):
            if self._attention is not None:
                attention, self._attention = self._attention, None
                self.fail(attention)
            self.sense = NO_SENSE
        if code in _FORMS:
            return self._transfer(code, block)
        handler = _COMMANDS.get(code)
        if handler is None:
            return self.fail(INVALID_COMMAND)
        return handler(self, block)

    def fail(self, sense: Sense) -> NoReturn:
        """Raises CheckCondition."""
        self.sense = sense
        raise CheckCondition(sense)

    def _there(self) -> Medium:
        if self.medium is None:
            self.fail(NOT_PRESENT)
        return self.medium

    def _transfer(self, code: int, block: bytes) -> Read | Write:
        self._there()
        form = _FORMS[code]
        if form == "6":
            address = int.from_bytes(block[1:4], "big") & 0x1FFFFF
            count = block[4] or 256
        elif form == "10":
            address, count = struct.unpack_from(">IxH", block, 2)
        elif form == "12":
            address, count = struct.unpack_from(">II", block, 2)
        else:
            address, count = struct.unpack_from(">QI", block, 2)
        if address + count > self.blocks:
            self.fail(OUT_OF_RANGE)
        place = (address * self.block_size, count * self.block_size)
        if code not in _WRITES:
            return Read(*place)
        if self.read_only:
            self.fail(WRITE_PROTECTED)
        return Write(*place)

    def _test(self, _block: bytes) -> bytes:
        self._there()
        return b""

    def _request_sense(self, block: bytes) -> bytes:
        if self._attention is not None:
            self.sense, self._attention = self._attention, None
        found, self.sense = self.sense.pack(), NO_SENSE
        return found[: block[4]]

    def _inquiry(self, block: bytes) -> bytes:
        length = int.from_bytes(block[3:5], "big")
        if block[1] & 1:
            return self._vital(block[2])[:length]
        if block[2]:
            self.fail(INVALID_FIELD)
        vendor, product = (name.encode("ascii", "replace") for name in self._names)
        head = struct.pack(">BBBBBBBB", 0, 0x80 if self.removable else 0, 6, 2, 31, 0, 0, 0)
        return (head + vendor.ljust(8)[:8] + product.ljust(16)[:16] + b"1.00")[:length]

    def _vital(self, page: int) -> bytes:
        """Vital product data (SPC-4, 7.8)."""
        serial = self._serial.encode("ascii", "replace") or b"0"
        name = self._names[0].encode("ascii", "replace").ljust(8)[:8] + serial
        pages = {
            0x00: bytes([0x00, 0x80, 0x83]),
            0x80: serial,
            0x83: bytes([2, 1, 0, len(name)]) + name,
        }
        if page not in pages:
            self.fail(INVALID_FIELD)
        return struct.pack(">BBH", 0, page, len(pages[page])) + pages[page]

    def _capacity_10(self, _block: bytes) -> bytes:
        self._there()
        return struct.pack(">II", min(self.blocks - 1, 0xFFFFFFFF), self.block_size)

    def _capacity_16(self, block: bytes) -> bytes:
        if block[1] & 0x1F != 0x10:
            self.fail(INVALID_FIELD)
        self._there()
        found = struct.pack(">QI20x", self.blocks - 1, self.block_size)
        return found[: int.from_bytes(block[10:14], "big")]

    def _format_capacities(self, _block: bytes) -> bytes:
        present = self.medium is not None
        kind = 2 if present else 3
        return struct.pack(">3xBII", 8, self.blocks or 0xFFFFFFFF, kind << 24 | self.block_size)

    def _pages(self, page: int) -> bytes:
        # Caching: the write cache is on, so that the host says when it wants to be sure.
        caching = bytes([0x08, 0x12, 0x04]) + bytes(17)
        if page in (0x08, 0x3F):
            return caching
        if page != 0x00:
            self.fail(INVALID_FIELD)
        return b""

    def _mode_sense_6(self, block: bytes) -> bytes:
        pages = self._pages(block[2] & 0x3F)
        return (bytes([3 + len(pages), 0, self.read_only << 7, 0]) + pages)[: block[4]]

    def _mode_sense_10(self, block: bytes) -> bytes:
        pages = self._pages(block[2] & 0x3F)
        head = struct.pack(">HBBHH", 6 + len(pages), 0, self.read_only << 7, 0, 0)
        return (head + pages)[: int.from_bytes(block[7:9], "big")]

    def _start_stop(self, block: bytes) -> bytes:
        load, start = block[4] & 2, block[4] & 1
        if load and not start:
            if self.locked:
                self.fail(REMOVAL_PREVENTED)
            self.flush()
            self.medium = None
            self.on_eject()
        return b""

    def _prevent(self, block: bytes) -> bytes:
        self.locked = bool(block[4] & 1)
        return b""

    def _synchronize(self, _block: bytes) -> bytes:
        self._there()
        self.flush()
        return b""

    def flush(self) -> None:
        """Let the medium keep what was written. Raises CheckCondition."""
        try:
            if self.medium is not None:
                self.medium.flush()
        except OSError:
            self.fail(WRITE_ERROR)

    def _verify(self, block: bytes) -> bytes:
        self._there()
        address, count = struct.unpack_from(">IxH", block, 2)
        if address + count > self.blocks:
            self.fail(OUT_OF_RANGE)
        if block[1] & 2:
            self.fail(INVALID_FIELD)  # compare with data: nobody asks for that
        return b""

    def _report_luns(self, block: bytes) -> bytes:
        return struct.pack(">I4x8x", 8)[: int.from_bytes(block[6:10], "big")]


_COMMANDS: dict[int, Callable[[Disk, bytes], bytes]] = {
    TEST_UNIT_READY: Disk._test,
    REQUEST_SENSE: Disk._request_sense,
    INQUIRY: Disk._inquiry,
    READ_CAPACITY_10: Disk._capacity_10,
    SERVICE_IN_16: Disk._capacity_16,
    READ_FORMAT_CAPACITIES: Disk._format_capacities,
    MODE_SENSE_6: Disk._mode_sense_6,
    MODE_SENSE_10: Disk._mode_sense_10,
    START_STOP: Disk._start_stop,
    PREVENT: Disk._prevent,
    SYNCHRONIZE_10: Disk._synchronize,
    SYNCHRONIZE_16: Disk._synchronize,
    VERIFY_10: Disk._verify,
    REPORT_LUNS: Disk._report_luns,
}
