"""A serial adapter: USB CDC, abstract control model. The test has the other end of its line.

Sources: USB CDC 1.2, §5.2.3 and §6.3; PSTN 1.2, §5.3 and §6.3.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from pytest_hil.errors import NotThere
from pytest_hil.usbip.descriptors import Association, Kind
from pytest_hil.usbip.device import Interface, Setup, VirtualDevice, request
from pytest_hil.usbip.urb import Urb

# Bytes that wait for the test to read them; then the guest's writers wait.
RECEIVE_BUFFER = 2**20

SET_LINE_CODING, GET_LINE_CODING = 0x20, 0x21
SET_CONTROL_LINE_STATE, SEND_BREAK = 0x22, 0x23
_SERIAL_STATE = 0x20

_CODING = struct.Struct("<IBBB")


def _functional() -> bytes:
    """Header 1.10, call management by nobody, ACM with line coding and break, union of 0 and 1."""
    parts = (
        struct.pack("<BBBH", 5, Kind.CLASS_INTERFACE, 0, 0x0110),
        struct.pack("<BBBBB", 5, Kind.CLASS_INTERFACE, 1, 0, 1),
        struct.pack("<BBBB", 4, Kind.CLASS_INTERFACE, 2, 0x06),
        struct.pack("<BBBBB", 5, Kind.CLASS_INTERFACE, 6, 0, 1),
    )
    return b"".join(parts)


@dataclass(frozen=True, slots=True)
class LineCoding:
    """What the guest set its port to: ``parity`` is N, O, E, M or S."""

    baudrate: int = 9600
    bytesize: int = 8
    parity: str = "N"
    stopbits: float = 1

    def pack(self) -> bytes:
        stop = {1: 0, 1.5: 1, 2: 2}[self.stopbits]
        return _CODING.pack(self.baudrate, stop, "NOEMS".index(self.parity), self.bytesize)

    @classmethod
    def parse(cls, data: bytes) -> LineCoding:
        baudrate, stop, parity, size = _CODING.unpack(data)
        return cls(baudrate, size, "NOEMS"[parity], (1, 1.5, 2)[stop])


class SerialPort(VirtualDevice):
    """A USB serial adapter. What the guest writes to its ttyACM is read here, and the other way.

    The test's end is used like pyserial's ``Serial``: ``read``, ``write``, ``readline``,
    ``in_waiting``, ``timeout`` (seconds; None waits for ever). ``line_coding``, ``dtr`` and ``rts``
    are what the guest has set; ``breaks`` counts the breaks that it sent.
    """

    product_id = 0x0003
    product = "Serial port"
    device_class, subclass, protocol = 0xEF, 2, 1  # interface associations
    associations = (Association(0, 2, 0x02, 0x02, 0x01),)

    control_interface = Interface(0x02, 0x02, 0x01, extra=_functional())
    notifications = control_interface.interrupt_in(1, max_packet=16, interval_ms=16)
    data_interface = Interface(0x0A)
    from_guest = data_interface.bulk_out(2)
    to_guest = data_interface.bulk_in(2)

    def __init__(self, *, timeout: float | None = 10.0) -> None:
        super().__init__()
        self.timeout = timeout
        self.line_coding = LineCoding()
        self.dtr = self.rts = False
        self.breaks = 0
        self._received = bytearray()
        self._outs: list[Urb] = []

    # --- the test's end ---

    @property
    def in_waiting(self) -> int:
        """Bytes that can be read at once."""
        return len(self._received)

    def read(self, size: int = 1) -> bytes:
        """Up to ``size`` bytes; fewer when ``timeout`` is over first."""
        # More than the buffer has room for comes in pieces: the guest waits while it is full.
        parts: list[bytes] = []
        while size > 0:
            piece = min(size, RECEIVE_BUFFER // 2)
            part = self._take(partial(self._filled, piece), piece)
            parts.append(part)
            size -= len(part)
            if len(part) < piece:
                break
        return b"".join(parts)

    def _filled(self, size: int) -> int:
        return size if len(self._received) >= size else 0

    def read_until(self, expected: bytes = b"\n", size: int | None = None) -> bytes:
        """Up to and with ``expected``; less when ``timeout`` is over, or after ``size`` bytes."""
        seen = 0

        def enough() -> int:
            nonlocal seen
            at = self._received.find(expected, max(0, seen - len(expected) + 1))
            seen = len(self._received)
            if at >= 0:
                found = at + len(expected)
                return found if size is None else min(found, size)
            return size if size is not None and seen >= size else 0

        return self._take(enough, size if size is not None else RECEIVE_BUFFER)

    def readline(self) -> bytes:
        """A line with its end; less when ``timeout`` is over."""
        return self.read_until(b"\n")

    def write(self, data: bytes) -> int:
        """Send to the guest. Raises NotThere when nobody takes it for ``timeout`` seconds."""
        timeout = self.timeout if self.timeout is not None else float(2**31)
        view = memoryview(data)
        for at in range(0, len(view), 16384):
            self.to_guest.send(view[at : at + 16384], timeout=timeout)
        return len(data)

    def flush(self) -> None:
        """Wait until the guest's kernel has taken all that was written. Raises NotThere."""
        self.to_guest.wait_sent(self.timeout if self.timeout is not None else float(2**31))

    def reset_input_buffer(self) -> None:
        """Drop what was not read."""
        with self.changed:
            self._received.clear()
            self._go_on()

    def reset_output_buffer(self) -> None:
        """Drop what the guest has not taken."""
        self.to_guest.forget()

    def wait_open(self, timeout: float = 10.0) -> None:
        """Until a program in the guest opened the port (DTR). Raises NotThere."""
        with self.changed:
            if not self.changed.wait_for(lambda: self.dtr, timeout):
                raise NotThere(f"nobody opened the port within {timeout:g} s")

    def set_state(self, *, dcd: bool = False, dsr: bool = False, ring: bool = False) -> None:
        """What the adapter says of its lines (PSTN 1.2, 6.5.4). Raises NotThere."""
        bits = dcd | dsr << 1 | ring << 3
        self.notifications.send(struct.pack("<BBHHHH", 0xA1, _SERIAL_STATE, 0, 0, 2, bits))

    def _take(self, enough: Callable[[], int], most: int) -> bytes:
        """So many bytes as ``enough`` says at last, or what is there when the time is over."""
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        with self.changed:
            while not (count := enough()):
                left = None if deadline is None else deadline - time.monotonic()
                if (left is not None and left <= 0) or not self.changed.wait(left):
                    count = most
                    break
            data = bytes(self._received[:count])
            del self._received[:count]
            self._go_on()
            return data

    # --- the guest's end ---

    @from_guest.urb
    def on_out(self, urb: Urb) -> None:
        self._outs.append(urb)
        self._go_on()

    def _go_on(self) -> None:
        while self._outs and len(self._received) < RECEIVE_BUFFER:
            urb = self._outs.pop(0)
            self._received += urb.data
            urb.complete()
            self.changed.notify_all()

    def on_cancel(self, urb: Urb) -> None:
        if urb in self._outs:
            self._outs.remove(urb)

    def on_released(self) -> None:
        self._outs.clear()
        self.dtr = self.rts = False
        self.changed.notify_all()

    @request(0x21, SET_LINE_CODING)
    def set_line_coding(self, setup: Setup, data: bytes) -> None:
        self.line_coding = LineCoding.parse(data)

    @request(0xA1, GET_LINE_CODING)
    def get_line_coding(self, setup: Setup) -> bytes:
        return self.line_coding.pack()

    @request(0x21, SET_CONTROL_LINE_STATE)
    def set_control_line_state(self, setup: Setup, data: bytes) -> None:
        self.dtr, self.rts = bool(setup.value & 1), bool(setup.value & 2)
        self.changed.notify_all()

    @request(0x21, SEND_BREAK)
    def send_break(self, setup: Setup, data: bytes) -> None:
        # 0 ends one that 0xFFFF began (PSTN 1.2, 6.3.13).
        self.breaks += bool(setup.value)
        self.changed.notify_all()
