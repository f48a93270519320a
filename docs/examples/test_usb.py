"""USB devices out of thin air: plugged into the machine, and used by programs on this host."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import pytest

from pytest_hil import Target
from pytest_hil.usbip.faults import stall
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback

pytestmark = pytest.mark.hil(features=["usb"])


def test_a_keyboard(hil: Target) -> None:
    keyboard = Keyboard()
    with hil.usb.attach(keyboard) as attached:
        events = attached.node("event")
        # It is open when this returns: no key is missed.
        hil.run(f"exec 3< {events}; setsid head -c 864 <&3 > /tmp/keys 2>&1 & echo $! > /tmp/pid")
        keyboard.type("hello\n")
        # Six keys, down and up, are three events of 24 bytes each time: scan code, key, report.
        hil.run("while kill -0 $(cat /tmp/pid) 2> /dev/null; do usleep 10000; done", timeout=10)
        assert int(hil.run("wc -c < /tmp/keys").stdout) == 6 * 2 * 3 * 24


def test_a_serial_port(hil: Target) -> None:
    port = SerialPort()
    with hil.usb.attach(port) as attached:
        tty = attached.node("ttyACM")
        hil.run(f"stty -F {tty} raw -echo 115200; echo hello from the machine > {tty}")
        assert port.readline() == b"hello from the machine\n"
        assert port.line_coding.baudrate == 115200


def test_a_stick_that_is_pulled_out_and_plugged_in_again(hil: Target) -> None:
    stick = MassStorage(16 * 2**20)
    data = os.urandom(2**20)
    with hil.usb.attach(stick) as attached:
        hil.run(f"dd of={attached.node('sd')} bs=64k conv=fsync", input=data)
        attached.replug()
        got = hil.run(f"head -c {len(data)} {attached.node('sd')} | sha256sum").stdout.split()[0]
        assert got == hashlib.sha256(data).hexdigest()
    assert stick.read_back(0, len(data)) == data


def test_a_device_with_a_fault(hil: Target) -> None:
    stick = MassStorage(2**20)
    # The third transfer to the host is refused: the driver has to recover.
    with hil.usb.attach(stick, faults=[stall(endpoint=0x81, nth=3)]) as attached:
        hil.run(f"dd if={attached.node('sd')} of=/dev/null bs=64k")


def test_a_device_for_programs_on_this_host(hil_usb: Any) -> None:
    import usb.core

    hil_usb.export(Loopback())
    with hil_usb.pyusb():
        device = usb.core.find(idVendor=0x1209, idProduct=0x0001)
        device.write(1, b"there and back")
        assert bytes(device.read(0x81, 64)) == b"there and back"
