"""A USB stick: mass storage, bulk-only transport (BOT 1.0) over the disk of :mod:`scsi`."""

from __future__ import annotations

import errno
import struct
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.errors import ConfigError
from pytest_hil.usbip.device import Interface, Setup, VirtualDevice, request
from pytest_hil.usbip.messages import Bytes, Direction, Speed
from pytest_hil.usbip.pipe import Pipe
from pytest_hil.usbip.urb import Urb
from pytest_hil.usbip.virtual import scsi
from pytest_hil.usbip.virtual.medium import FileMedium, in_memory, open_file

_COMMAND = struct.Struct("<4sIIBBB16s")
_STATUS = struct.Struct("<4sIIB")

PASSED, FAILED, PHASE_ERROR = 0, 1, 2

GET_MAX_LUN, RESET = 0xFE, 0xFF


@dataclass(slots=True)
class _Exchange:
    """A command between its wrapper and its status.

    ``expected``: bytes that the host expects; ``total``: that the command moves, of which ``done``
    are. ``flows``: some are left to move, out of ``data`` or between the medium's ``place`` and
    the host.
    """

    tag: int
    expected: int
    inward: bool
    status: int = PASSED
    data: Bytes = b""
    place: int | None = None
    total: int = 0
    done: int = 0
    flows: bool = False


class MassStorage(VirtualDevice):
    """A stick with what is in a file (a path), in bytes (a copy of them), or of so many zeros.

    ``MassStorage(256 * 2**20)``, ``MassStorage("disk.img", read_only=True)``. A file is written to,
    and nobody else may use it as a stick meanwhile. ``content`` None: no medium is in it yet.

    Raises ConfigError for a size that is no multiple of ``block_size``, or a file that is missing.
    """

    product_id = 0x0005
    product = "Stick"
    serial_number = "0123456789AB"  # BOT 1.0, 4.1.1: at least twelve hexadecimal digits
    speed = Speed.SUPER

    main = Interface(0x08, 0x06, 0x50)
    into = main.bulk_out(2)
    out_of = main.bulk_in(1)

    def __init__(
        self,
        content: str | Path | bytes | bytearray | int | None,
        *,
        read_only: bool = False,
        removable: bool = True,
        block_size: int = 512,
        serial_number: str = "",
    ) -> None:
        if block_size not in (512, 1024, 2048, 4096):
            raise ConfigError("block_size", f"{block_size}; allowed: 512, 1024, 2048, 4096")
        if serial_number:
            self.serial_number = serial_number
        self._block_size = block_size
        self._read_only = read_only
        self._medium = self._open(content)
        self.disk = scsi.Disk(
            self._medium,
            block_size=block_size,
            read_only=read_only,
            removable=removable,
            serial=self.serial_number,
        )
        self.disk.on_eject = self._ejected
        self._exchange: _Exchange | None = None
        self._phase_error = False
        self._ins: deque[Urb] = deque()
        self._outs: deque[Urb] = deque()
        # Bytes, since it was made.
        self.bytes_read = 0
        self.bytes_written = 0
        super().__init__()

    # --- for the test ---

    def eject(self) -> None:
        """Take the medium out, whatever the guest does with it."""
        with self.changed:
            self.disk.change(None)
            self._ejected()

    def insert(self, content: str | Path | bytes | bytearray | int) -> None:
        """Put a medium in. Raises ConfigError as the constructor does."""
        with self.changed:
            old, self._medium = self._medium, self._open(content)
            self.disk.change(self._medium)
            if old is not None:
                old.close()

    def read_back(self, offset: int = 0, length: int | None = None) -> bytes:
        """What is on it now. Raises ConfigError when no medium is in it."""
        with self.changed:
            if self._medium is None:
                raise ConfigError("MassStorage", "no medium is in it")
            length = self._medium.size - offset if length is None else length
            return bytes(self._medium.read(offset, length))

    def close(self) -> None:
        """Let its file go. May be called twice."""
        with self.changed:
            self.eject()

    def _open(self, content: str | Path | bytes | bytearray | int | None) -> FileMedium | None:
        if content is None:
            return None
        size, read_only = self._block_size, self._read_only
        if isinstance(content, str | Path):
            return open_file(Path(content), block_size=size, read_only=read_only)
        return in_memory(content, block_size=size, read_only=read_only)

    def _ejected(self) -> None:
        if self._medium is not None:
            self._medium.close()
            self._medium = None

    # --- bulk-only transport ---

    @into.urb
    def on_into(self, urb: Urb) -> None:
        self._outs.append(urb)
        self._go_on()

    @out_of.urb
    def on_out_of(self, urb: Urb) -> None:
        self._ins.append(urb)
        self._go_on()

    @request(0xA1, GET_MAX_LUN)
    def get_max_lun(self, setup: Setup) -> bytes:
        return b"\0"

    @request(0x21, RESET)
    def reset(self, setup: Setup, data: bytes) -> None:
        self._exchange = None
        self._phase_error = False

    def on_cancel(self, urb: Urb) -> None:
        waiting = self._ins if urb.direction is Direction.IN else self._outs
        if urb in waiting:
            waiting.remove(urb)

    def on_configured(self) -> None:
        self._forget()

    def on_released(self) -> None:
        self._forget()

    def on_clear_halt(self, pipe: Pipe) -> None:
        # Until the reset that BOT 1.0, 5.3.4 asks for, both endpoints stay halted.
        if self._phase_error:
            pipe.halt()
        else:
            self._go_on()

    def _forget(self) -> None:
        self._exchange = None
        self._phase_error = False
        self._ins.clear()
        self._outs.clear()

    def _go_on(self) -> None:
        """As far as the host's transfers allow."""
        while True:
            exchange = self._exchange
            if exchange is None:
                if not self._outs:
                    return
                self._begin(self._outs.popleft())
            elif exchange.flows and exchange.inward:
                if not self._ins or self.out_of.halted:
                    return
                self._give(exchange, self._ins.popleft())
            elif exchange.flows:
                if not self._outs or self.into.halted:
                    return
                self._take(exchange, self._outs.popleft())
            else:
                if not self._ins or self.out_of.halted:
                    return
                self._finish(exchange, self._ins.popleft())

    def _begin(self, urb: Urb) -> None:
        """A command block wrapper (BOT 1.0, 5.1), valid and meaningful (6.2)."""
        data = bytes(urb.data)
        if len(data) != _COMMAND.size:
            self._lost(urb)
            return
        signature, tag, expected, flags, lun, length, block = _COMMAND.unpack(data)
        if signature != b"USBC" or not 1 <= length <= 16 or lun:
            self._lost(urb)
            return
        urb.complete()
        exchange = _Exchange(tag, expected, inward=bool(flags & 0x80))
        self._exchange = exchange
        try:
            answer = self.disk.command(block[:length])
        except scsi.CheckCondition:
            exchange.status = FAILED
            self._no_data(exchange)
            return
        self._prepare(exchange, answer)

    def _prepare(self, exchange: _Exchange, answer: scsi.Answer) -> None:
        """What the host expects against what the command does: the 13 cases of BOT 1.0, 6.7."""
        if isinstance(answer, bytes):
            inward = True
            exchange.data, exchange.total = memoryview(answer), len(answer)
        else:
            inward = isinstance(answer, scsi.Read)
            exchange.place, exchange.total = answer.offset, answer.length
        if not exchange.total:
            self._no_data(exchange)  # cases 1, 4 and 9
        elif exchange.total > exchange.expected or inward is not exchange.inward:
            # Cases 2, 3, 7, 8, 10 and 13: the host would not get, or not give, all of it.
            exchange.status = PHASE_ERROR
            self._no_data(exchange)
        else:
            exchange.flows = True

    def _no_data(self, exchange: _Exchange) -> None:
        """If the host expects data, the endpoint says that there is none."""
        if exchange.expected:
            self._cut(exchange)

    def _cut(self, exchange: _Exchange) -> None:
        """The data end before the host expects it."""
        exchange.flows = False
        if exchange.inward:
            self._halt(self.out_of, self._ins)
        else:
            self._halt(self.into, self._outs)

    def _halt(self, pipe: Pipe, waiting: deque[Urb]) -> None:
        pipe.halt()
        if waiting:
            waiting.popleft().stall()

    def _lost(self, urb: Urb) -> None:
        """Not a valid wrapper: both endpoints are halted until a reset (BOT 1.0, 6.6.1)."""
        self._phase_error = True
        urb.stall()
        self.into.halt()
        self.out_of.halt()
        for waiting in (self._ins, self._outs):
            while waiting:
                waiting.popleft().stall()

    def _give(self, exchange: _Exchange, urb: Urb) -> None:
        count = min(urb.length, exchange.total - exchange.done)
        if exchange.place is None:
            data = exchange.data[exchange.done : exchange.done + count]
        else:
            try:
                data = self._there().read(exchange.place + exchange.done, count)
            except OSError:
                self._medium_error(exchange, scsi.READ_ERROR, urb)
                return
            self.bytes_read += count
        exchange.done += count
        urb.complete(data)
        if exchange.done == exchange.total:
            exchange.flows = False
            # Case 5: a short packet ends the data, and where it came out even, a stall.
            if exchange.done < exchange.expected and count == urb.length:
                self._cut(exchange)

    def _take(self, exchange: _Exchange, urb: Urb) -> None:
        assert exchange.place is not None
        count = min(urb.length, exchange.total - exchange.done)
        try:
            place = exchange.place + exchange.done
            self._there().write(place, memoryview(urb.data)[:count])
        except OSError:
            self._medium_error(exchange, scsi.WRITE_ERROR, urb)
            return
        self.bytes_written += count
        exchange.done += count
        urb.complete()
        if exchange.done == exchange.total:
            exchange.flows = False
            if exchange.done < exchange.expected:
                self._cut(exchange)  # case 11

    def _there(self) -> scsi.Medium:
        """The medium; it may be taken out in the middle of a command."""
        if self.disk.medium is None:
            raise OSError(errno.ENOMEDIUM, "no medium")
        return self.disk.medium

    def _medium_error(self, exchange: _Exchange, sense: scsi.Sense, urb: Urb) -> None:
        self.disk.sense = sense if self.disk.medium is not None else scsi.NOT_PRESENT
        exchange.status = FAILED
        urb.stall()
        self._cut(exchange)

    def _finish(self, exchange: _Exchange, urb: Urb) -> None:
        """A command status wrapper (BOT 1.0, 5.2)."""
        self._exchange = None
        residue = exchange.expected - exchange.done
        urb.complete(_STATUS.pack(b"USBS", exchange.tag, residue, exchange.status))
