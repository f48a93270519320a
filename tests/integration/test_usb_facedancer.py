"""Facedancer's own devices, as they come, in a real guest."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from facedancer.devices.keyboard import USBKeyboardDevice
from facedancer.devices.umass.disk_image import RawDiskImage
from facedancer.devices.umass.umass import USBMassStorageDevice

from pytest_hil.qemu.guest import Guest
from pytest_hil.usbip.facedancer import FacedancerDevice

pytestmark = pytest.mark.machine


def test_a_keyboard_types(guest: Guest) -> None:
    keyboard = USBKeyboardDevice()
    with FacedancerDevice(keyboard) as device, guest.usb.attach(device) as attached:
        event = attached.node("event")
        # Until the program reads, keys go nowhere.
        guest.run(f"exec 3<{event}; (head -c 144 <&3 > /tmp/keys) < /dev/null > /dev/null 2>&1 &")
        device.run(keyboard.type_string("a"))
        keys = guest.run("until [ -s /tmp/keys ]; do usleep 20000; done; xxd -p /tmp/keys").stdout
        device.check()
    assert "01001e0001000000" in keys.replace("\n", "")  # EV_KEY, KEY_A, pressed
    assert "01001e0000000000" in keys.replace("\n", "")


def test_a_stick_is_read_and_written(guest: Guest, tmp_path: Path) -> None:
    path = tmp_path / "stick"
    content = os.urandom(2**20)
    path.write_bytes(content)
    stick = USBMassStorageDevice(RawDiskImage(str(path), 512))
    with FacedancerDevice(stick) as device, guest.usb.attach(device) as attached:
        node = attached.node("sd")
        seen = guest.run(f"sha256sum {node}", timeout=60).stdout.split()[0]
        assert seen == hashlib.sha256(content).hexdigest()
        device.check()
