"""A backend for pyusb: unmodified scripts use devices that somebody exports over USB/IP.

No kernel module, no root, no libusb: ``with pyusb("127.0.0.1:3240"): usb.core.find(…)``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NoReturn

import usb.backend
import usb.backend.libusb1
import usb.core

from pytest_hil.errors import ChannelLost, ConfigError, HilError, ProtocolError
from pytest_hil.usbip.descriptors import (
    Configuration,
    DescriptorError,
    DeviceDescriptor,
    parse_configuration,
)
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.importer import Address, Importer, Refused, list_devices
from pytest_hil.usbip.messages import (
    NO_DEVICE,
    OK,
    OVERFLOW,
    SHUTDOWN,
    STALL,
    Device,
    IsoPacket,
    OpStatus,
    RetSubmit,
    parse_address,
)

Where = str | Address | Exporter

# Milliseconds for what the backend asks by itself.
_OWN = 5000

# Seconds until an exporter has noticed that we gave a device back: Linux's does that in a thread.
_RELEASED = 3.0

_TEXTS = {
    errno.EPIPE: "Pipe error",
    errno.ENODEV: "No such device (it may have been disconnected)",
    errno.ETIMEDOUT: "Operation timed out",
    errno.EOVERFLOW: "Overflow",
    errno.EBUSY: "Resource busy",
    errno.EIO: "Input/Output Error",
    errno.ENOENT: "Entity not found",
}


def _fail(number: int, cause: BaseException | None = None) -> NoReturn:
    text = _TEXTS.get(number) or os.strerror(number)
    kind = usb.core.USBTimeoutError if number == errno.ETIMEDOUT else usb.core.USBError
    raise kind(text, None, number) from cause


def _check(reply: RetSubmit) -> RetSubmit:
    """Raises USBError as libusb's backend would."""
    if reply.status == OK:
        return reply
    known = {
        STALL: errno.EPIPE,
        NO_DEVICE: errno.ENODEV,
        SHUTDOWN: errno.ENODEV,
        OVERFLOW: errno.EOVERFLOW,
        -errno.ENOENT: errno.ENOENT,
        -errno.ETIMEDOUT: errno.ETIMEDOUT,
    }
    _fail(known.get(reply.status, errno.EIO))


@dataclass(slots=True)
class _Known:
    """What a device said of itself, which takes importing it to find out."""

    device: DeviceDescriptor
    configurations: list[Configuration]


@dataclass(slots=True, eq=False)
class _Remote:
    """A device on a list: pyusb's ``dev``."""

    address: Address
    device: Device


@dataclass(slots=True, eq=False)
class _Handle:
    """A device that was imported: pyusb's ``dev_handle``."""

    importer: Importer
    known: _Known
    configuration: int = 0
    alternates: dict[int, int] = field(default_factory=dict)


def _key(remote: _Remote) -> tuple[object, ...]:
    one = remote.device
    return (remote.address, one.busid, one.devid, one.vendor_id, one.product_id, one.bcd_device)


class Backend(usb.backend.IBackend):  # type: ignore[misc]
    """pyusb's IBackend over the devices of some exporters."""

    def __init__(self, addresses: list[Address]) -> None:
        super().__init__()
        self._addresses = addresses
        self._lock = threading.Lock()
        self._known: dict[tuple[object, ...], _Known] = {}
        self._handles: set[_Handle] = set()
        # Devices that were ours a moment ago, and until when their exporter may not know that.
        self._given_back: dict[tuple[Address, str], float] = {}

    def close(self) -> None:
        """Give every device back."""
        with self._lock:
            handles, self._handles = self._handles, set()
        for handle in handles:
            handle.importer.close()

    # --- what there is ---

    def enumerate_devices(self) -> Iterator[_Remote]:
        for address in self._addresses:
            try:
                devices = list_devices(address)
            except (HilError, ProtocolError) as error:
                raise usb.core.USBError(str(error), None, errno.EIO) from error
            for device in devices:
                yield _Remote(address, device)

    def get_parent(self, dev: _Remote) -> None:  # noqa: ARG002 - hubs do not travel
        return None

    def get_device_descriptor(self, dev: _Remote) -> SimpleNamespace:
        one = self._know(dev).device
        return SimpleNamespace(
            bLength=18,
            bDescriptorType=1,
            bcdUSB=one.usb,
            bDeviceClass=one.device_class,
            bDeviceSubClass=one.subclass,
            bDeviceProtocol=one.protocol,
            bMaxPacketSize0=one.max_packet,
            idVendor=one.vendor_id,
            idProduct=one.product_id,
            bcdDevice=one.release,
            iManufacturer=one.manufacturer,
            iProduct=one.product,
            iSerialNumber=one.serial,
            bNumConfigurations=one.configurations,
            address=dev.device.devnum,
            bus=dev.device.busnum,
            port_number=dev.device.devnum,
            port_numbers=(dev.device.devnum,),
            # libusb's numbers are the kernel's, but for wireless, which is gone.
            speed=min(int(dev.device.speed), 5) - (dev.device.speed >= 5),
        )

    def get_configuration_descriptor(self, dev: _Remote, config: int) -> SimpleNamespace:
        one = self._know(dev).configurations[config]
        return SimpleNamespace(
            bLength=9,
            bDescriptorType=2,
            wTotalLength=len(one.pack()),
            bNumInterfaces=len(one.numbers),
            bConfigurationValue=one.value,
            iConfiguration=one.string,
            bmAttributes=one.attributes,
            bMaxPower=one.max_power,
            extra_descriptors=one.extra,
        )

    def get_interface_descriptor(
        self, dev: _Remote, intf: int, alt: int, config: int
    ) -> SimpleNamespace:
        configuration = self._know(dev).configurations[config]
        # pyusb counts them, whatever their numbers are.
        number = configuration.numbers[intf]
        one = [each for each in configuration.interfaces if each.number == number][alt]
        return SimpleNamespace(
            bLength=9,
            bDescriptorType=4,
            bInterfaceNumber=one.number,
            bAlternateSetting=one.alternate,
            bNumEndpoints=len(one.endpoints),
            bInterfaceClass=one.interface_class,
            bInterfaceSubClass=one.subclass,
            bInterfaceProtocol=one.protocol,
            iInterface=one.string,
            extra_descriptors=one.extra,
        )

    def get_endpoint_descriptor(
        self, dev: _Remote, ep: int, intf: int, alt: int, config: int
    ) -> SimpleNamespace:
        configuration = self._know(dev).configurations[config]
        number = configuration.numbers[intf]
        setting = [each for each in configuration.interfaces if each.number == number][alt]
        one = setting.endpoints[ep]
        return SimpleNamespace(
            bLength=7,
            bDescriptorType=5,
            bEndpointAddress=one.address,
            bmAttributes=one.attributes,
            wMaxPacketSize=one.max_packet,
            bInterval=one.interval,
            bRefresh=0,
            bSynchAddress=0,
            extra_descriptors=one.extra,
        )

    def _know(self, remote: _Remote) -> _Known:
        found = self._known.get(_key(remote))
        if found is None:
            try:
                with self._import(remote) as importer:
                    found = _ask(importer)
            except Refused as error:
                if error.status != OpStatus.DEV_BUSY:
                    _fail(errno.ENODEV, error)
                return _guess(remote.device)
            except (ChannelLost, ProtocolError) as error:
                _fail(errno.EIO, error)
            self._known[_key(remote)] = found
        return found

    @contextlib.contextmanager
    def _import(self, remote: _Remote) -> Iterator[Importer]:
        importer = self._imported(remote)
        try:
            yield importer
        finally:
            self._give_back(remote.address, importer)

    def _imported(self, remote: _Remote) -> Importer:
        place = (remote.address, remote.device.busid)
        until = self._given_back.get(place, 0.0)
        while True:
            try:
                return Importer(remote.address, remote.device.busid)
            except Refused:
                if time.monotonic() > until:
                    raise
                # No event tells of it: the exporter's thread is on its way.
                threading.Event().wait(0.02)

    def _give_back(self, address: Address, importer: Importer) -> None:
        importer.close()
        self._given_back[address, importer.device.busid] = time.monotonic() + _RELEASED

    # --- using one ---

    def open_device(self, dev: _Remote) -> _Handle:
        try:
            importer = self._imported(dev)
        except Refused as error:
            _fail(errno.EBUSY if error.status == OpStatus.DEV_BUSY else errno.ENODEV, error)
        except (ChannelLost, ProtocolError) as error:
            _fail(errno.ENODEV, error)
        try:
            known = self._known.get(_key(dev)) or _ask(importer)
            handle = _Handle(importer, known)
            handle.configuration = self._configured(handle)
        except BaseException:
            self._give_back(dev.address, importer)
            raise
        handle_address = dev.address
        with self._lock:
            self._handles.add(handle)
            self._given_back[handle_address, dev.device.busid] = 0.0
        return handle

    def _configured(self, handle: _Handle) -> int:
        """As a host's kernel does it, a device has its first configuration when it is opened."""
        reply = self._control(handle, 0x80, 8, 0, 0, 1, _OWN)
        now = reply.data[0] if reply.actual else 0
        if not now and handle.known.configurations:
            now = handle.known.configurations[0].value
            _check(self._control(handle, 0, 9, now, 0, b"", _OWN))
        return int(now)

    def close_device(self, dev_handle: _Handle) -> None:
        with self._lock:
            self._handles.discard(dev_handle)
        importer = dev_handle.importer
        address = next((one for one in self._addresses if _named(one) == importer.name), None)
        if address is None:
            importer.close()
        else:
            self._give_back(address, importer)

    def set_configuration(self, dev_handle: _Handle, config_value: int) -> None:
        _check(self._control(dev_handle, 0, 9, config_value, 0, b"", _OWN))
        dev_handle.configuration = config_value
        dev_handle.alternates.clear()

    def get_configuration(self, dev_handle: _Handle) -> int:
        return dev_handle.configuration

    def set_interface_altsetting(self, dev_handle: _Handle, intf: int, altsetting: int) -> None:
        _check(self._control(dev_handle, 1, 11, altsetting, intf, b"", _OWN))
        dev_handle.alternates[intf] = altsetting

    def claim_interface(self, dev_handle: _Handle, intf: int) -> None:
        """The whole device is ours already."""

    def release_interface(self, dev_handle: _Handle, intf: int) -> None:
        """Nothing to do: see claim_interface."""

    def clear_halt(self, dev_handle: _Handle, ep: int) -> None:
        _check(self._control(dev_handle, 2, 1, 0, ep, b"", _OWN))

    def reset_device(self, dev_handle: _Handle) -> None:
        """A port's reset does not travel over USB/IP: its configuration is set again."""
        self.set_configuration(dev_handle, dev_handle.configuration)

    def is_kernel_driver_active(self, dev_handle: _Handle, intf: int) -> bool:  # noqa: ARG002
        return False

    def detach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:  # noqa: ARG002
        _fail(errno.ENOENT)

    def attach_kernel_driver(self, dev_handle: _Handle, intf: int) -> None:  # noqa: ARG002
        _fail(errno.ENOENT)

    # --- transfers: timeouts in milliseconds, 0 for ever ---

    def ctrl_transfer(
        self,
        dev_handle: _Handle,
        bmRequestType: int,
        bRequest: int,
        wValue: int,
        wIndex: int,
        data: Any,
        timeout: int,
    ) -> int:
        incoming = bool(bmRequestType & 0x80)
        what = len(data) * data.itemsize if incoming else data.tobytes()
        reply = _check(
            self._control(dev_handle, bmRequestType, bRequest, wValue, wIndex, what, timeout)
        )
        if incoming:
            _fill(data, reply.data)
            return len(reply.data)
        return reply.actual

    def bulk_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:  # noqa: ARG002
        return self._write(dev_handle, ep, data, timeout)

    def intr_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:  # noqa: ARG002
        return self._write(dev_handle, ep, data, timeout)

    def bulk_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:  # noqa: ARG002
        return self._read(dev_handle, ep, buff, timeout)

    def intr_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:  # noqa: ARG002
        return self._read(dev_handle, ep, buff, timeout)

    def iso_write(self, dev_handle: _Handle, ep: int, intf: int, data: Any, timeout: int) -> int:  # noqa: ARG002
        raw = data.tobytes()
        packets = self._packets(dev_handle, ep, len(raw))
        return self._iso(dev_handle, ep, timeout, data=raw, iso=packets).actual

    def iso_read(self, dev_handle: _Handle, ep: int, intf: int, buff: Any, timeout: int) -> int:  # noqa: ARG002
        length = len(buff) * buff.itemsize
        packets = self._packets(dev_handle, ep, length)
        reply = self._iso(dev_handle, ep, timeout, length=length, iso=packets)
        # As libusb does: each packet stands in its place, whatever is missing before it.
        placed, at = bytearray(length), 0
        for asked, got in zip(packets, reply.iso, strict=True):
            placed[asked.offset : asked.offset + got.actual] = reply.data[at : at + got.actual]
            at += got.actual
        _fill(buff, placed)
        return reply.actual

    def _packets(self, handle: _Handle, address: int, length: int) -> list[IsoPacket]:
        size = self._payload(handle, address)
        return [IsoPacket(at, min(size, length - at)) for at in range(0, length, size)]

    def _payload(self, handle: _Handle, address: int) -> int:
        for configuration in handle.known.configurations:
            for interface in configuration.interfaces:
                now = handle.alternates.get(interface.number, 0)
                for endpoint in interface.endpoints:
                    if endpoint.address == address and interface.alternate == now:
                        return max(endpoint.payload, 1)
        _fail(errno.ENOENT)

    def _iso(self, handle: _Handle, address: int, timeout: int, **what: Any) -> RetSubmit:
        try:
            transfer = handle.importer.submit(address, **what)
            try:
                return _check(transfer.wait(_seconds(timeout)))
            except TimeoutError as error:
                transfer.cancel()
                _fail(errno.ETIMEDOUT, error)
        except (ChannelLost, ProtocolError) as error:
            _fail(errno.ENODEV, error)

    def _control(
        self,
        handle: _Handle,
        kind: int,
        request: int,
        value: int,
        index: int,
        data: bytes | int,
        timeout: int,
    ) -> RetSubmit:
        with _mapped():
            return handle.importer.control(
                kind, request, value, index, data, timeout=_seconds(timeout)
            )

    def _write(self, handle: _Handle, address: int, data: Any, timeout: int) -> int:
        with _mapped():
            reply = handle.importer.write(address, data.tobytes(), timeout=_seconds(timeout))
        return _check(reply).actual

    def _read(self, handle: _Handle, address: int, buffer: Any, timeout: int) -> int:
        length = len(buffer) * buffer.itemsize
        with _mapped():
            reply = handle.importer.read(address, length, timeout=_seconds(timeout))
        _check(reply)
        _fill(buffer, reply.data)
        return reply.actual


@contextlib.contextmanager
def _mapped() -> Iterator[None]:
    """Our errors become pyusb's."""
    try:
        yield
    except TimeoutError as error:
        _fail(errno.ETIMEDOUT, error)
    except (ChannelLost, ProtocolError) as error:
        _fail(errno.ENODEV, error)


def _seconds(timeout: int) -> float | None:
    return timeout / 1000 if timeout else None


def _fill(buffer: array[int], data: bytes | bytearray | memoryview) -> None:
    memoryview(buffer).cast("B")[: len(data)] = data


def _ask(importer: Importer) -> _Known:
    """Read a device's descriptors. Raises USBError, ChannelLost, ProtocolError."""
    device = DeviceDescriptor.parse(_descriptor(importer, 0x0100, 18))
    configurations = []
    for index in range(device.configurations):
        head = _descriptor(importer, 0x0200 | index, 9)
        total = int.from_bytes(head[2:4], "little")
        whole = _descriptor(importer, 0x0200 | index, total)
        configurations.append(parse_configuration(whole))
    return _Known(device, configurations)


def _descriptor(importer: Importer, value: int, length: int) -> bytes:
    try:
        reply = importer.control(0x80, 6, value, 0, length, timeout=_OWN / 1000)
    except TimeoutError as error:
        _fail(errno.ETIMEDOUT, error)
    data = bytes(_check(reply).data)
    if len(data) < length:
        raise DescriptorError(f"{len(data)} of {length} bytes came", offset=0, data=data)
    return data


def _guess(device: Device) -> _Known:
    """What is known of a device that somebody else has: what is on the list."""
    found = DeviceDescriptor(
        vendor_id=device.vendor_id,
        product_id=device.product_id,
        device_class=device.device_class,
        subclass=device.subclass,
        protocol=device.protocol,
        release=device.bcd_device,
        configurations=0,
    )
    return _Known(found, [])


def _named(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(where: Where) -> Address:
    if isinstance(where, Exporter):
        return where.address
    if isinstance(where, str):
        try:
            return parse_address(where)
        except ValueError as error:
            raise ConfigError("pyusb()", str(error)) from None
    return where


@contextlib.contextmanager
def pyusb(*where: Where) -> Iterator[Backend]:
    """Inside of it, pyusb finds the devices of these exporters and no others.

    ``where`` is "host:port", a (host, port), or an Exporter. For the whole process: pyusb asks its
    libusb1 module for a backend first, and that is what is replaced meanwhile; whoever passes a
    backend of its own is not affected. At its end all devices are given back.

    A device is imported briefly when it is listed, because its descriptors do not travel with the
    list; one that somebody else has appears with what the list says, and without configurations.
    """
    backend = Backend([_address(one) for one in where])
    before = usb.backend.libusb1.get_backend
    usb.backend.libusb1.get_backend = lambda *_args, **_options: backend
    try:
        yield backend
    finally:
        usb.backend.libusb1.get_backend = before
        backend.close()


__all__ = ["Backend", "pyusb"]
