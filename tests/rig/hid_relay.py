"""A USB relay board of www.dcttech.com as a Python object.

As the free firmware for these boards does it (u1f35c's usb-relay-firmware): any number of a report
is right, and eight bytes are its only report.
"""

from __future__ import annotations

from pytest_hil.usbip.descriptors import Kind
from pytest_hil.usbip.device import Interface, Setup, VirtualDevice, request
from pytest_hil.usbip.messages import Speed
from pytest_hil.usbip.virtual.hid import hid_descriptor

# A vendor's usage with eight bytes of feature report, which has no number.
REPORT = bytes.fromhex("0600ff 0901 a101 0901 1500 26ff00 7508 9508 b102 c0")


class RelayBoard(VirtualDevice):
    """``on`` has the channels that are on; ``commands`` what it was told."""

    vendor_id, product_id = 0x16C0, 0x05DF
    manufacturer = "www.dcttech.com"
    speed = Speed.FULL
    main = Interface(0x03, extra=hid_descriptor(REPORT))
    reports = main.interrupt_in(1, max_packet=8, interval_ms=100)

    def __init__(self, channels: int = 2, *, board: str = "BITFT", product: str = "") -> None:
        self.channels = channels
        self.board = board
        self.product = product or f"USBRelay{channels}"
        self.on: set[int] = set()
        self.stuck = False
        self.commands: list[bytes] = []
        # What it answers instead of its state.
        self.garbage: bytes | None = None
        super().__init__()

    def descriptor(self, kind: int, index: int, interface: int) -> bytes | None:
        if kind == Kind.REPORT:
            return REPORT
        return hid_descriptor(REPORT) if kind == Kind.HID else None

    @request(0xA1, 0x01)
    def get_report(self, setup: Setup) -> bytes:
        if self.garbage is not None:
            return self.garbage
        bits = sum(1 << (channel - 1) for channel in self.on)
        return self.board.encode().ljust(7, b"\0") + bytes([bits])

    @request(0x21, 0x09)
    def set_report(self, setup: Setup, data: bytes) -> None:
        self.commands.append(data)
        command, channel = data[0], data[1]
        if self.stuck or not 1 <= channel <= self.channels:
            return
        if command == 0xFF:
            self.on.add(channel)
        elif command == 0xFD:
            self.on.discard(channel)
