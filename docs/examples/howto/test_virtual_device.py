"""A USB device in thirty lines: a thermometer with a question, an answer and an alarm."""

from __future__ import annotations

from typing import Any

from pytest_hil import Target
from pytest_hil.usbip.device import Interface, Setup, VirtualDevice, request


class Thermometer(VirtualDevice):
    vendor_id, product_id = 0x1209, 0x0010
    product = "Thermometer"
    serial_number = "T-1"

    main = Interface(0xFF)
    command = main.bulk_out(1)
    reply = main.bulk_in(1)
    alarm = main.interrupt_in(2, max_packet=8, interval_ms=10)

    degrees = 21.5

    @command.received
    def on_command(self, data: bytes) -> None:
        known = data == b"degrees?"
        self.reply.offer(f"{self.degrees}".encode() if known else b"what?")

    @request(0xC0, 0x01)  # vendor, from the device
    def read_degrees(self, setup: Setup) -> bytes:
        return f"{self.degrees}".encode()

    def set(self, degrees: float) -> None:
        """What the test does with it."""
        self.degrees = degrees
        if degrees > 90:
            self.alarm.send(b"hot")


def test_the_thermometer(hil_usb: Any) -> None:
    import usb.core

    thermometer = Thermometer()
    hil_usb.export(thermometer)
    with hil_usb.pyusb():
        device = usb.core.find(product="Thermometer")
        device.write(1, b"degrees?")
        assert bytes(device.read(0x81, 64)) == b"21.5"
        thermometer.set(95)
        assert bytes(device.read(0x82, 8)) == b"hot"
        assert bytes(device.ctrl_transfer(0xC0, 1, 0, 0, 64)) == b"95"


def test_the_machine_sees_it(hil: Target) -> None:
    with hil.usb.attach(Thermometer()) as attached:
        where = f"/sys/bus/usb/devices/{attached.guest_busid}"
        assert hil.run(f"cat {where}/product").stdout == "Thermometer\n"
