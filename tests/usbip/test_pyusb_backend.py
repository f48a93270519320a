"""Unmodified pyusb code, on devices that are Python objects."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
import usb.backend.libusb1
import usb.core
import usb.util

from pytest_hil.errors import ConfigError
from pytest_hil.usbip.exporter import Exporter, Plugged
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.pyusb_backend import pyusb
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.vendor import Loopback


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found:
        found.plug(Keyboard())
        yield found


@pytest.fixture
def plugged(exporter: Exporter) -> Plugged:
    return exporter.plug(Loopback())


@pytest.fixture
def device(exporter: Exporter, plugged: Plugged) -> Iterator[Any]:
    with pyusb(exporter):
        found = usb.core.find(idVendor=0x1209, idProduct=0x0001)
        assert found is not None
        yield found
        usb.util.dispose_resources(found)


def test_finding(exporter: Exporter, plugged: Plugged) -> None:
    before = usb.backend.libusb1.get_backend
    with pyusb("{}:{}".format(*exporter.address)):
        every = list(usb.core.find(find_all=True))
        assert [(one.idProduct, one.bus, one.address) for one in every] == [(2, 1, 2), (1, 1, 3)]
        assert usb.core.find(idVendor=0xDEAD) is None
        keyboard = usb.core.find(bDeviceClass=0, product="Keyboard")
        assert keyboard.manufacturer == "pytest-hil"
        assert not plugged.in_use, "looking at the list takes nothing away"
    assert usb.backend.libusb1.get_backend is before
    with pytest.raises(ConfigError, match="is no address"), pyusb("a:b:c"):
        pass


def test_descriptors(device: Any) -> None:
    assert (device.product, device.serial_number) == ("Loopback", "loopback")
    assert device.speed == usb.util.SPEED_HIGH
    (configuration,) = device
    settings = [(one.bInterfaceNumber, one.bAlternateSetting) for one in configuration]
    assert settings == [(0, 0), (0, 1)]
    endpoints = [one.bEndpointAddress for one in configuration[0, 1]]
    assert endpoints == [0x01, 0x81, 0x02, 0x82, 0x03, 0x83, 0x04, 0x84]
    assert "Loopback" in str(device) or "CONFIGURATION 1" in str(device)


def test_a_tree_of_several_interfaces(exporter: Exporter) -> None:
    exporter.plug(SerialPort())
    with pyusb(exporter):
        port = usb.core.find(idProduct=3)
        kinds = [one.bInterfaceClass for one in port.get_active_configuration()]
        assert kinds == [2, 10]
        usb.util.dispose_resources(port)


def test_bulk_interrupt_and_control(device: Any) -> None:
    device.set_configuration()
    for endpoint in (1, 2):
        assert device.write(endpoint, b"there and back") == 14
        assert bytes(device.read(0x80 | endpoint, 64)) == b"there and back"
    assert device.write(1, b"") == 0
    assert bytes(device.read(0x81, 64)) == b""
    assert device.ctrl_transfer(0x40, 0x5B, 0, 0, b"kept") == 4
    assert bytes(device.ctrl_transfer(0xC0, 0x5C, 0, 0, 100)) == b"kept"
    assert device.get_active_configuration().bConfigurationValue == 1


def test_isochronous(device: Any) -> None:
    device.set_interface_altsetting(0, 1)
    assert device.write(0x03, bytes(range(200))) == 200
    got = bytes(device.read(0x83, 400))
    assert bytes(range(192)) == got[:192]
    assert bytes(range(192, 200)) == got[192:200]


def test_timeouts(device: Any) -> None:
    with pytest.raises(usb.core.USBTimeoutError) as caught:
        device.read(0x81, 64, timeout=20)
    assert caught.value.errno == errno.ETIMEDOUT
    device.write(1, b"after")
    assert bytes(device.read(0x81, 64)) == b"after"


def test_stalls(device: Any) -> None:
    with pytest.raises(usb.core.USBError) as caught:
        device.ctrl_transfer(0xC0, 0x99, 0, 0, 8)
    assert caught.value.errno == errno.EPIPE
    device.ctrl_transfer(0x02, 3, 0, 0x81)  # SET_FEATURE(ENDPOINT_HALT)
    with pytest.raises(usb.core.USBError) as caught:
        device.read(0x81, 8)
    assert caught.value.errno == errno.EPIPE
    device.clear_halt(0x81)
    device.write(1, b"on")
    assert bytes(device.read(0x81, 8)) == b"on"


def test_unplugged(device: Any, plugged: Plugged) -> None:
    device.write(1, b"x")
    plugged.unplug()
    with pytest.raises(usb.core.USBError) as caught:
        device.read(0x81, 8)
    assert caught.value.errno == errno.ENODEV


def test_somebody_else_has_it(exporter: Exporter, plugged: Plugged) -> None:
    with Importer(exporter.address, plugged.busid), pyusb(exporter):
        found = usb.core.find(idProduct=1)
        assert found.idVendor == 0x1209
        assert found.bNumConfigurations == 0
        with pytest.raises(usb.core.USBError) as caught:
            found.ctrl_transfer(0x80, 6, 0x100, 0, 18)
        assert caught.value.errno == errno.EBUSY


def test_it_is_given_back(exporter: Exporter, plugged: Plugged) -> None:
    for _ in range(3):
        with pyusb(exporter):
            device = usb.core.find(idProduct=1)
            device.write(1, b"x")
            assert plugged.in_use
        plugged.wait_released(10)


def test_no_exporter_there(exporter: Exporter) -> None:
    address = exporter.address
    exporter.close()
    with pyusb(address), pytest.raises(usb.core.USBError, match="no exporter answers"):
        usb.core.find(idProduct=1)
