"""A device written for Facedancer, on a machine of the test's own."""

from __future__ import annotations

from facedancer.devices.keyboard import USBKeyboardDevice

from pytest_hil import Target
from pytest_hil.usbip.facedancer import FacedancerDevice


def test_a_facedancer_keyboard(hil: Target) -> None:
    keyboard = USBKeyboardDevice()
    with FacedancerDevice(keyboard) as device, hil.usb.attach(device) as attached:
        node = attached.node("event")
        hil.run(f"exec 3<{node}; (head -c 24 <&3 > /tmp/event) < /dev/null > /dev/null 2>&1 &")
        device.run(keyboard.type_string("a"))
        hil.run("until [ -s /tmp/event ]; do usleep 10000; done", timeout=10)
