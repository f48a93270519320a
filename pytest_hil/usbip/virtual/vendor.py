"""A vendor device that gives back what it gets: for tests of hosts, drivers and exporters."""

from __future__ import annotations

from collections import deque

from pytest_hil.usbip.device import Interface, Setup, Stall, VirtualDevice, request
from pytest_hil.usbip.messages import SHUTDOWN, Direction
from pytest_hil.usbip.urb import TransferType, Urb

MiB = 2**20

# Bytes that wait to be taken back; an OUT beyond that waits itself.
DEPTH_BYTES = 4 * MiB

# As in Linux's gadget zero (drivers/usb/gadget/function/f_sourcesink.c).
WRITE_BUFFER, READ_BUFFER = 0x5B, 0x5C


class Loopback(VirtualDevice):
    """Gives back what it gets.

    Bulk OUT 1 → IN 1, interrupt OUT 2 → IN 2, isochronous OUT 3 → IN 3 (in alternate setting 1),
    and a buffer of 4096 bytes by the vendor requests 0x5B (write) and 0x5C (read).

    Bulk OUT 4 swallows everything, bulk IN 4 gives as many bytes as are asked for: byte n is
    n modulo 63, as of gadget zero's pattern 1. A zero-length OUT comes back as a zero-length IN.
    """

    vendor_id, product_id = 0x1209, 0x0001
    product = "Loopback"
    serial_number = "loopback"

    main = Interface(0xFF)
    out = main.bulk_out(1)
    back = main.bulk_in(1)
    interrupt_out = main.interrupt_out(2)
    interrupt_back = main.interrupt_in(2)
    sink = main.bulk_out(4)
    source = main.bulk_in(4)

    streaming = main.alternate()
    _out_too = streaming.bulk_out(1)
    _back_too = streaming.bulk_in(1)
    _interrupt_out_too = streaming.interrupt_out(2)
    _interrupt_back_too = streaming.interrupt_in(2)
    iso_out = streaming.iso_out(3, max_packet=192)
    iso_back = streaming.iso_in(3, max_packet=192)
    _sink_too = streaming.bulk_out(4)
    _source_too = streaming.bulk_in(4)

    def __init__(self) -> None:
        super().__init__()
        # By type, as the numbers are others in a composite device.
        self._loops = {TransferType.BULK: _Loop(), TransferType.INTERRUPT: _Loop()}
        self._buffer = b""
        self._pattern = memoryview(b"")
        self.swallowed = 0

    @out.urb
    @_out_too.urb
    @interrupt_out.urb
    @_interrupt_out_too.urb
    def on_out(self, urb: Urb) -> None:
        self._loops[urb.type].put(urb)

    @back.urb
    @_back_too.urb
    @interrupt_back.urb
    @_interrupt_back_too.urb
    def on_in(self, urb: Urb) -> None:
        self._loops[urb.type].take(urb)

    @sink.urb
    @_sink_too.urb
    def on_sink(self, urb: Urb) -> None:
        self.swallowed += urb.length
        urb.complete()

    @source.urb
    @_source_too.urb
    def on_source(self, urb: Urb) -> None:
        if len(self._pattern) < urb.length:
            self._pattern = memoryview(bytes(range(63)) * (urb.length // 63 + 1))
        urb.complete(self._pattern[: urb.length])

    @iso_out.received
    def on_packet(self, data: bytes) -> None:
        self.iso_back.offer(data)

    @request(0x40, WRITE_BUFFER)
    @request(0x41, WRITE_BUFFER)
    def write_buffer(self, setup: Setup, data: bytes) -> None:
        if setup.value or setup.index or len(data) > 4096:
            raise Stall
        self._buffer = data

    @request(0xC0, READ_BUFFER)
    @request(0xC1, READ_BUFFER)
    def read_buffer(self, setup: Setup) -> bytes:
        if setup.value or setup.index:
            raise Stall
        return self._buffer

    def on_cancel(self, urb: Urb) -> None:
        if (loop := self._loops.get(urb.type)) is not None:
            loop.forget(urb)

    def on_configured(self) -> None:
        for loop in self._loops.values():
            loop.clear()

    def on_alternate(self, interface: int, alternate: int) -> None:
        self.on_configured()

    def on_released(self) -> None:
        self.on_configured()


class _Loop:
    """What one pair of endpoints has got and not given back."""

    def __init__(self) -> None:
        self._held: deque[bytes] = deque()
        self._size = 0
        self._outs: deque[Urb] = deque()
        self._ins: deque[Urb] = deque()

    def put(self, urb: Urb) -> None:
        self._outs.append(urb)
        self._go_on()

    def take(self, urb: Urb) -> None:
        self._ins.append(urb)
        self._go_on()

    def forget(self, urb: Urb) -> None:
        waiting = self._ins if urb.direction is Direction.IN else self._outs
        if urb in waiting:
            waiting.remove(urb)

    def clear(self) -> None:
        self._held.clear()
        self._size = 0
        for urb in (*self._ins, *self._outs):
            urb.complete(status=SHUTDOWN)
        self._ins.clear()
        self._outs.clear()

    def _go_on(self) -> None:
        while True:
            if self._outs and (not self._held or self._size < DEPTH_BYTES):
                urb = self._outs.popleft()
                data = bytes(urb.data)
                self._held.append(data)
                self._size += len(data)
                urb.complete()
            elif self._ins and self._held:
                urb, data = self._ins.popleft(), self._held.popleft()
                if len(data) > urb.length:
                    self._held.appendleft(data[urb.length :])
                    data = data[: urb.length]
                self._size -= len(data)
                urb.complete(data)
            else:
                return
