"""Devices written for Facedancer, its own ones among them, driven by unmodified pyusb code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import usb.core
import usb.util
from facedancer import (
    USBConfiguration,
    USBDevice,
    USBDirection,
    USBEndpoint,
    USBInterface,
    USBTransferType,
    use_inner_classes_automatically,
    vendor_request_handler,
)
from facedancer.devices.ftdi import FTDIDevice
from facedancer.devices.keyboard import USBKeyboardDevice
from facedancer.devices.umass.disk_image import RawDiskImage
from facedancer.devices.umass.umass import USBMassStorageDevice
from facedancer.errors import EndEmulation

from pytest_hil.errors import NotThere
from pytest_hil.usbip.declare import DeclarationError
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.facedancer import FacedancerDevice
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.messages import IsoPacket
from pytest_hil.usbip.pyusb_backend import pyusb


@use_inner_classes_automatically
class Echo(USBDevice):  # type: ignore[misc]
    """What comes on endpoint 1 goes back there; two isochronous endpoints in a second setting."""

    vendor_id: int = 0x1209
    product_id: int = 0x0003
    product_string: str = "Echo"

    class Main(USBConfiguration):  # type: ignore[misc]
        class Quiet(USBInterface):  # type: ignore[misc]
            class_number: int = 0xFF

            class Out(USBEndpoint):  # type: ignore[misc]
                number: int = 1
                direction: USBDirection = USBDirection.OUT

                def handle_data_received(self, data: bytes) -> None:
                    device = self.get_device()
                    if data == b"stall":
                        device.stall(endpoint_number=1, direction=USBDirection.IN)
                    elif data == b"raise":
                        raise ValueError("on purpose")
                    elif data == b"leave":
                        raise EndEmulation
                    else:
                        device.send(1, data)

            class In(USBEndpoint):  # type: ignore[misc]
                number: int = 1
                direction: USBDirection = USBDirection.IN

        class Loud(USBInterface):  # type: ignore[misc]
            alternate: int = 1
            class_number: int = 0xFF

            class Out(USBEndpoint):  # type: ignore[misc]
                number: int = 2
                direction: USBDirection = USBDirection.OUT
                transfer_type: USBTransferType = USBTransferType.ISOCHRONOUS
                interval: int = 1

                def handle_data_received(self, data: bytes) -> None:
                    self.get_device().heard.append(data)

            class In(USBEndpoint):  # type: ignore[misc]
                number: int = 2
                direction: USBDirection = USBDirection.IN
                transfer_type: USBTransferType = USBTransferType.ISOCHRONOUS
                interval: int = 1

                def handle_data_requested(self) -> None:
                    heard = self.get_device().heard
                    self.send(heard.pop(0) if heard else b"")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.heard: list[bytes] = []
        self.kept = b""
        self.requests: list[Any] = []

    @vendor_request_handler(number=1, direction=USBDirection.OUT)  # type: ignore[untyped-decorator]
    def keep(self, request: Any) -> None:
        self.kept = request.data
        request.acknowledge()

    @vendor_request_handler(number=2, direction=USBDirection.IN)  # type: ignore[untyped-decorator]
    def give(self, request: Any) -> None:
        request.reply(self.kept)

    @vendor_request_handler(number=3, direction=USBDirection.IN)  # type: ignore[untyped-decorator]
    def later(self, request: Any) -> None:
        self.requests.append(request)

    async def answer(self) -> int:
        while not self.requests:
            await asyncio.sleep(0.001)
        self.requests.pop().reply(b"late")
        return 7


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found:
        yield found


@pytest.fixture
def echo(exporter: Exporter) -> Iterator[FacedancerDevice]:
    with FacedancerDevice(Echo()) as found:
        exporter.plug(found)
        yield found


@pytest.fixture
def device(exporter: Exporter, echo: FacedancerDevice) -> Iterator[Any]:
    with pyusb(exporter):
        found = usb.core.find(idVendor=0x1209, idProduct=0x0003)
        found.set_configuration()
        yield found
        usb.util.dispose_resources(found)


def test_what_it_says_of_itself(device: Any) -> None:
    assert device.product == "Echo"
    assert [one.bEndpointAddress for one in device[0][(0, 0)]] == [0x01, 0x81]
    assert [one.bmAttributes & 3 for one in device[0][(0, 1)]] == [1, 1]


@pytest.mark.parametrize("size", [1, 63, 65, 1000])
def test_bulk(device: Any, size: int) -> None:
    data = os.urandom(size)
    device.write(1, data)
    assert bytes(device.read(0x81, 1024)) == data


def test_full_packets_are_not_the_end(device: Any) -> None:
    device.write(1, bytes(64))
    with pytest.raises(usb.core.USBTimeoutError):
        device.read(0x81, 128, timeout=100)  # a short packet would have ended it
    device.write(1, b"end")
    assert bytes(device.read(0x81, 128)) == bytes(64) + b"end"


def test_control(device: Any) -> None:
    assert device.ctrl_transfer(0x40, 1, data_or_wLength=b"kept") == 4
    assert bytes(device.ctrl_transfer(0xC0, 2, data_or_wLength=64)) == b"kept"
    assert bytes(device.ctrl_transfer(0xC0, 2, data_or_wLength=2)) == b"ke"
    with pytest.raises(usb.core.USBError) as caught:
        device.ctrl_transfer(0xC0, 99, data_or_wLength=64)
    assert caught.value.errno == errno.EPIPE
    assert bytes(device.ctrl_transfer(0xC0, 2, data_or_wLength=64)) == b"kept"


def test_a_coroutine_answers(exporter: Exporter, echo: FacedancerDevice) -> None:
    with Importer(exporter.address, "1-1") as importer:
        setup = bytes((0xC0, 3, 0, 0, 0, 0, 64, 0))
        waiting = importer.submit(0x80, length=64, setup=setup)
        assert echo.run(echo.device.answer()) == 7
        assert bytes(waiting.wait(5).data) == b"late"


def test_a_coroutine_that_does_not_end(echo: FacedancerDevice) -> None:
    with pytest.raises(NotThere, match=r"did not end within 0\.1 s"):
        echo.run(asyncio.sleep(60), timeout=0.1)


def test_a_halt_is_cleared(device: Any) -> None:
    device.write(1, b"stall")
    with pytest.raises(usb.core.USBError) as caught:
        device.read(0x81, 64)
    assert caught.value.errno == errno.EPIPE
    device.clear_halt(0x81)
    device.write(1, b"again")
    assert bytes(device.read(0x81, 64)) == b"again"


def test_what_a_handler_raises(device: Any, echo: FacedancerDevice) -> None:
    echo.check()
    with pytest.raises(usb.core.USBError) as caught:
        device.write(1, b"raise")
    assert caught.value.errno == errno.EPIPE
    with pytest.raises(ValueError, match="on purpose"):
        echo.check()


def test_the_end_of_emulation_unplugs(device: Any, exporter: Exporter) -> None:
    with contextlib.suppress(usb.core.USBError):
        device.write(1, b"leave")  # it may be gone before this is confirmed
    with pytest.raises(usb.core.USBError):
        device.read(0x81, 64)
    assert exporter.devices() == []


def test_isochronous(exporter: Exporter, echo: FacedancerDevice) -> None:
    with Importer(exporter.address, "1-1") as importer:
        importer.control(0x00, 9, 1)
        importer.control(0x01, 11, 1)
        out = [IsoPacket(offset, 16) for offset in range(0, 64, 16)]
        data = os.urandom(64)
        sent = importer.submit(0x02, data=data, iso=out).wait(10)
        assert (sent.status, sent.actual) == (0, 64)
        back = [IsoPacket(offset, 64) for offset in range(0, 5 * 64, 64)]
        got = importer.submit(0x82, length=5 * 64, iso=back).wait(10)
        assert bytes(got.data) == data
        assert [one.actual for one in got.iso] == [16] * 4 + [0]
    echo.check()


def test_a_cancelled_transfer_loses_nothing(exporter: Exporter, echo: FacedancerDevice) -> None:
    with Importer(exporter.address, "1-1") as importer:
        importer.control(0x00, 9, 1)
        assert importer.submit(0x81, length=64).cancel().status == -errno.ECONNRESET
        importer.write(1, b"for the next")
        assert bytes(importer.read(0x81, 64).data) == b"for the next"


def test_a_new_import_begins_anew(exporter: Exporter, echo: FacedancerDevice) -> None:
    for _ in range(3):
        with Importer(exporter.address, "1-1") as importer:
            assert bytes(importer.control(0x80, 8, data=1).data) == b"\0"
            importer.control(0x00, 9, 1)
            with pytest.raises(TimeoutError):
                importer.read(0x81, 64, timeout=0.05)
            importer.write(1, b"left behind")


def test_an_importer_that_never_reads(exporter: Exporter, echo: FacedancerDevice) -> None:
    with Importer(exporter.address, "1-1") as importer:
        importer.control(0x00, 9, 1)
        for _ in range(65):
            importer.write(1, bytes(2**20))
    with pytest.raises(NotThere, match="nobody polls endpoint 1"):
        echo.check()


def test_without_a_configuration() -> None:
    class Bare(USBDevice):  # type: ignore[misc]
        pass

    with pytest.raises(DeclarationError, match="use_inner_classes_automatically"):
        FacedancerDevice(Bare())


# --- Facedancer's own devices, as they come ---


def test_its_keyboard(exporter: Exporter) -> None:
    keyboard = USBKeyboardDevice()
    with FacedancerDevice(keyboard) as device, pyusb(exporter):
        exporter.plug(device)
        found = usb.core.find(idVendor=keyboard.vendor_id)
        assert found.product == "Non-suspicious Keyboard"
        found.set_configuration()
        keyboard.key_down(4)
        reports = [bytes(found.read(0x83, 16)) for _ in range(2)]
        assert reports[-1] == bytes((0, 0, 4, 0, 0, 0, 0, 0, 0, 0))
        usb.util.dispose_resources(found)
        device.check()


def test_its_serial_adapter(exporter: Exporter) -> None:
    adapter = FTDIDevice()
    adapter.handle_serial_data_received = lambda data: adapter.transmit(data.upper())
    with FacedancerDevice(adapter) as device, pyusb(exporter):
        exporter.plug(device)
        found = usb.core.find(idVendor=0x0403)
        found.set_configuration()
        found.write(2, b"hello")
        got = bytes(found.read(0x81, 64))
        usb.util.dispose_resources(found)
        device.check()
    assert got.endswith(b"HELLO")


def test_its_stick(exporter: Exporter, tmp_path: Path) -> None:
    path = tmp_path / "stick"
    content = os.urandom(64 * 512)
    path.write_bytes(content)
    stick = USBMassStorageDevice(RawDiskImage(str(path), 512))
    with FacedancerDevice(stick) as device, pyusb(exporter):
        exporter.plug(device)
        found = usb.core.find(idVendor=0x8107)
        found.set_configuration()
        read = bytes((0x28, 0, 0, 0, 0, 2, 0, 0, 8, 0)).ljust(16, b"\0")
        found.write(1, b"USBC" + b"abcd" + (8 * 512).to_bytes(4, "little") + b"\x80\0\x0a" + read)
        assert bytes(found.read(0x83, 8 * 512)) == content[2 * 512 : 10 * 512]
        assert bytes(found.read(0x83, 13)) == b"USBSabcd" + bytes(5)
        usb.util.dispose_resources(found)
        device.check()
