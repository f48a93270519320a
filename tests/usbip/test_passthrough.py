"""A device of one exporter, passed on by another: no host device is at hand, but pyusb's is a real
interface, and what stands behind it is a device that answers."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

import pytest
import usb.core

from pytest_hil.errors import ChannelLost, InfrastructureError, NotThere
from pytest_hil.usbip.exporter import Exporter, Plugged
from pytest_hil.usbip.importer import Importer, Transfer
from pytest_hil.usbip.messages import STALL, UNLINKED
from pytest_hil.usbip.passthrough import Passthrough
from pytest_hil.usbip.pyusb_backend import Backend
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.vendor import Loopback


@pytest.fixture
def source() -> Iterator[Plugged]:
    with Exporter() as exporter:
        exporter.plug(Keyboard())
        yield exporter.plug(Loopback())


@pytest.fixture
def backend(source: Plugged) -> Iterator[Backend]:
    found = Backend([source._exporter.address])
    yield found
    found.close()


@pytest.fixture
def device(backend: Backend) -> Iterator[Importer]:
    with Exporter() as exporter:
        exporter.plug(Passthrough.find(vendor_id=0x1209, product_id=1, backend=backend))
        with Importer(exporter.address, "1-1") as found:
            assert found.control(0, 9, 1).status == 0
            yield found


def test_it_is_the_same_device(device: Importer) -> None:
    assert (device.device.vendor_id, device.device.product_id) == (0x1209, 1)
    assert [one.interface_class for one in device.device.interfaces] == []
    assert device.control(0x80, 6, 0x0100, data=18).actual == 18
    text = bytes(device.control(0x80, 6, 0x0302, 0x0409, 255).data)
    assert text[2:].decode("utf-16-le") == "Loopback"


def test_transfers(device: Importer) -> None:
    for endpoint in (1, 2):
        assert device.write(endpoint, b"there and back").actual == 14
        assert bytes(device.read(endpoint, 64).data) == b"there and back"
    assert device.control(0x40, 0x5B, data=b"kept").actual == 4
    assert bytes(device.control(0xC0, 0x5C, data=64).data) == b"kept"
    assert device.control(0xC0, 0x77, data=8).status == STALL


def test_a_halt_is_cleared(device: Importer) -> None:
    assert device.control(0x02, 3, 0, 0x81).status == 0
    assert device.read(1, 8).status == STALL
    assert device.control(0x02, 1, 0, 0x81).status == 0
    device.write(1, b"on")
    assert bytes(device.read(1, 8).data) == b"on"


def test_another_setting(device: Importer) -> None:
    assert device.control(0x01, 11, 1, 0).status == 0
    assert bytes(device.control(0x81, 10, 0, 0, 1).data) == b"\1"


def test_giving_up(device: Importer) -> None:
    waiting = device.submit(0x81, length=8)
    assert waiting.cancel().status == UNLINKED
    device.write(1, b"later")
    assert bytes(device.read(1, 8).data) == b"later"


def gone(waiting: Transfer) -> None:
    """Raises ChannelLost, at the latest by the next transfer."""
    waiting.wait(10)
    waiting._importer._reader.join(10)
    waiting._importer.read(1, 8)


def test_the_first_one_unplugs(device: Importer, source: Plugged) -> None:
    waiting = device.submit(0x81, length=8)
    source.unplug()
    with pytest.raises(ChannelLost):
        gone(waiting)


def test_finding(backend: Backend) -> None:
    found = Passthrough.find(product_id=2, backend=backend)
    assert repr(found) == "<Passthrough 1209:0002 1-2>"
    assert Passthrough.find(serial="loopback", backend=backend).describe().product_id == 1
    assert Passthrough.find(bus_path="1-3", backend=backend).describe().product_id == 1
    with pytest.raises(NotThere, match=r"(?s)no USB device is vendor_id=0x1234; .*1-2 .*1209:0002"):
        Passthrough.find(vendor_id=0x1234, backend=backend)
    with pytest.raises(NotThere, match=r"(?s)several USB devices are .*say which"):
        Passthrough.find(vendor_id=0x1209, backend=backend)


class Forbidden(Backend):
    """As libusb is to a user who may not open the device's node."""

    def open_device(self, dev: Any) -> Any:
        raise usb.core.USBError("Access denied (insufficient permissions)", -3, errno.EACCES)

    def is_kernel_driver_active(self, dev_handle: Any, intf: int) -> bool:
        raise AssertionError("it was not opened")


def test_the_rule_that_is_missing(source: Plugged) -> None:
    backend = Forbidden([source._exporter.address])
    with pytest.raises(InfrastructureError) as caught:
        Passthrough.find(product_id=1, backend=backend)
    rule = 'SUBSYSTEM=="usb", ATTR{idVendor}=="1209", ATTR{idProduct}=="0001"'
    assert "may not use <Passthrough 1209:0001" in str(caught.value)
    assert rule in str(caught.value)
    assert "/etc/udev/rules.d/70-pytest-hil.rules" in str(caught.value)
