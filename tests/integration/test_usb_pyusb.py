"""One pyusb script, with nothing of ours in it, on devices that come from elsewhere."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
import usb.core
import usb.util

from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.pyusb_backend import pyusb
from pytest_hil.usbip.virtual.vendor import Loopback
from tests.integration import linux_exporter
from tests.integration.linux_exporter import LinuxExporter

pytestmark = pytest.mark.machine


@pytest.fixture(scope="module")
def linux(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinuxExporter]:
    directory = tmp_path_factory.mktemp("linux")
    with linux_exporter.bench_for(directory) as bench, linux_exporter.gadget(bench) as found:
        yield found


# --- the script: pyusb and nothing else ---


def find(vendor: int, product: int) -> Any:
    device = usb.core.find(idVendor=vendor, idProduct=product)
    assert device is not None, [hex(one.idVendor) for one in usb.core.find(find_all=True)]
    device.set_configuration()
    return device


def endpoints(device: Any, kind: int, of_class: int = 0xFF) -> tuple[Any, Any]:
    """The first OUT and the first IN of this type; None where there is none."""
    found = [
        each
        for interface in device.get_active_configuration()
        if (interface.bAlternateSetting, interface.bInterfaceClass) == (0, of_class)
        for each in interface
        if usb.util.endpoint_type(each.bmAttributes) == kind
    ]
    way_of = usb.util.endpoint_direction
    outs = [one for one in found if way_of(one.bEndpointAddress) == usb.util.ENDPOINT_OUT]
    ins = [one for one in found if way_of(one.bEndpointAddress) == usb.util.ENDPOINT_IN]
    return (outs or [None])[0], (ins or [None])[0]


def script_control(device: Any, write: tuple[int, int], read: tuple[int, int], index: int) -> None:
    """What one request writes another one reads: seven bytes."""
    assert len(device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)) == 18
    data = bytes.fromhex("00c20100000007")
    assert device.ctrl_transfer(*write, 0, index, data) == 7
    assert bytes(device.ctrl_transfer(*read, 0, index, 7)) == data
    assert usb.util.get_string(device, device.iProduct) == device.product


def script_stall(device: Any) -> None:
    with pytest.raises(usb.core.USBError) as caught:
        device.ctrl_transfer(0xC0, 0x7F, 0, 0, 8)
    assert caught.value.errno == errno.EPIPE
    assert len(device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)) == 18


def script_timeout(device: Any, address: int) -> None:
    with pytest.raises(usb.core.USBTimeoutError) as caught:
        device.read(address, 64, timeout=100)
    assert caught.value.errno == errno.ETIMEDOUT
    assert len(device.ctrl_transfer(0x80, 6, 0x0100, 0, 18)) == 18


# --- the devices ---


def test_a_virtual_device() -> None:
    with Exporter() as exporter, pyusb(exporter):
        exporter.plug(Loopback())
        device = find(0x1209, 0x0001)
        script_control(device, (0x40, 0x5B), (0xC0, 0x5C), 0)
        script_stall(device)
        for kind in (usb.util.ENDPOINT_TYPE_BULK, usb.util.ENDPOINT_TYPE_INTR):
            out, back = endpoints(device, kind)
            assert out.write(b"to the device") == 13
            assert bytes(back.read(64)) == b"to the device"
            script_timeout(device, back.bEndpointAddress)
        usb.util.dispose_resources(device)


def test_a_gadget_of_a_linux_guest(linux: LinuxExporter) -> None:
    with pyusb(linux.address):
        device = find(0x1D6B, 0x0104)
        assert (device.manufacturer, device.product, device.serial_number) == (
            "linux",
            "gadget",
            "42",
        )
        # The line coding of the serial port, which is interface 2.
        script_control(device, (0x21, 0x20), (0xA1, 0x21), 2)
        script_stall(device)
        out, back = endpoints(device, usb.util.ENDPOINT_TYPE_BULK)
        assert out.write(bytes(4096)) == 4096
        assert bytes(back.read(4096)) == bytes(4096)
        to_hid, from_hid = endpoints(device, usb.util.ENDPOINT_TYPE_INTR, of_class=3)
        script_timeout(device, from_hid.bEndpointAddress)
        linux.guest.run("printf 12345678 > /dev/hidg0")
        assert bytes(from_hid.read(8)) == b"12345678"
        assert to_hid.write(b"87654321") == 8
        assert linux.guest.run("head -c 8 /dev/hidg0", timeout=20).stdout == "87654321"
        usb.util.dispose_resources(device)


def test_a_gadget_is_given_back(linux: LinuxExporter) -> None:
    for _ in range(2):
        with pyusb(linux.address):
            device = find(0x1D6B, 0x0104)
            assert device.get_active_configuration().bConfigurationValue == 1
