"""A device of this host, exported as it is: through pyusb, and whatever backend that has.

Each endpoint has a thread, because pyusb's transfers block; they stay in order on an endpoint, one
at a time. Isochronous endpoints are left out: pyusb does not tell how much each packet brought.
:mod:`pytest_hil.usbip.passthrough_libusb1` has no such limits.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import usb.core
import usb.util

from pytest_hil.errors import InfrastructureError, ToolMissing
from pytest_hil.usbip import host_device
from pytest_hil.usbip.declare import Setup
from pytest_hil.usbip.descriptors import (
    Configuration,
    DeviceDescriptor,
    EndpointDescriptor,
    InterfaceDescriptor,
)
from pytest_hil.usbip.host_device import (
    CLEAR_FEATURE,
    SET_CONFIGURATION,
    SET_INTERFACE,
    HostDevice,
)
from pytest_hil.usbip.messages import (
    NO_DEVICE,
    NO_ENDPOINT,
    OVERFLOW,
    PROTOCOL,
    STALL,
    Device,
    Direction,
)
from pytest_hil.usbip.urb import TransferType, Urb

# Milliseconds. An IN waits in slices, between which it may be cancelled: a slice that ends without
# data loses none. An OUT that nobody takes ends after the longer one.
_SLICE = 200
_PATIENCE = 10_000

Key = tuple[int, Direction]


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a worker's work."""


class Passthrough:
    """A real device as something to export; see :meth:`find`.

    While somebody has imported it, this host's own drivers let it go.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        self._lock = threading.Lock()
        self._cancelled: set[Urb] = set()
        self._workers: dict[Key, _Worker] = {}
        self._alternates: dict[int, int] = {}
        self._configuration = 0
        self._detached: list[int] = []
        self._kept: dict[int, bytes] = {}
        self._unplug: Callable[[], None] = lambda: None
        with self._permitted():
            # Opens it, so that what is missing is said now, and not in the middle of a test.
            device.is_kernel_driver_active(0)
        self._configurations = [_configuration(one) for one in device]

    def __repr__(self) -> str:
        one = self._device
        return f"<Passthrough {one.idVendor:04x}:{one.idProduct:04x} {one.bus}-{one.address}>"

    @classmethod
    def find(
        cls,
        *,
        vendor_id: int | None = None,
        product_id: int | None = None,
        serial: str | None = None,
        bus_path: str | None = None,
        backend: Any = None,
    ) -> Passthrough:
        """The one device of this host that fits. ``bus_path`` is "1-2.3", as in sysfs.

        ``backend``: another one of pyusb's. Raises NotThere when none fits, or several do,
        InfrastructureError when it may not be used, ToolMissing without libusb.
        """
        try:
            every = [_known(one) for one in usb.core.find(find_all=True, backend=backend)]
        except usb.core.NoBackendError:
            raise ToolMissing("libusb", package="libusb-1.0-0") from None
        found = host_device.choose(
            every, vendor_id=vendor_id, product_id=product_id, serial=serial, bus_path=bus_path
        )
        return cls(found.device)

    @contextlib.contextmanager
    def _permitted(self) -> Any:
        try:
            yield
        except usb.core.USBError as error:
            if error.errno != errno.EACCES:
                if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP):
                    return
                raise InfrastructureError(f"{self!r} cannot be opened: {error}") from error
            one = self._device
            raise host_device.not_permitted(self, one.idVendor, one.idProduct) from error

    # --- what the exporter calls ---

    def describe(self) -> Device:
        one = self._device
        value = self._configurations[0].value
        return host_device.describe(
            _descriptor(one), self._configurations, speed=one.speed, value=value
        )

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        now = self._configuration
        these = [one for one in self._configurations if now in (0, one.value)]
        return host_device.transfer_type(these, self._alternates, endpoint, direction)

    def plugged(self, unplug: Callable[[], None]) -> None:
        self._unplug = unplug

    def imported(self) -> None:
        self._configuration = 0
        self._alternates.clear()
        self._kept.clear()
        self._worker((0, Direction.OUT)).put(self._take_from_the_host)

    def submit(self, urb: Urb) -> None:
        if urb.type is TransferType.ISO:
            urb.complete(status=-errno.EOPNOTSUPP)
            return
        # Control transfers are in order in both directions.
        way = urb.direction if urb.endpoint else Direction.OUT
        self._worker((urb.endpoint, way)).put(lambda: self._do(urb))

    def cancel(self, urb: Urb) -> None:
        with self._lock:
            self._cancelled.add(urb)

    def released(self) -> None:
        self._worker((0, Direction.OUT)).put(self._give_back_to_the_host)
        workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.end()

    def _worker(self, key: Key) -> _Worker:
        found = self._workers.get(key)
        if found is None:
            found = self._workers[key] = _Worker(f"hil-passthrough-{key[0]}-{key[1].name}")
        return found

    # --- in the workers ---

    def _take_from_the_host(self) -> None:
        for interface in self._device[0]:
            number = interface.bInterfaceNumber
            with contextlib.suppress(usb.core.USBError, NotImplementedError):
                if interface.bAlternateSetting == 0 and self._device.is_kernel_driver_active(
                    number
                ):
                    self._device.detach_kernel_driver(number)
                    self._detached.append(number)

    def _give_back_to_the_host(self) -> None:
        usb.util.dispose_resources(self._device)
        detached, self._detached = self._detached, []
        for number in detached:
            with contextlib.suppress(usb.core.USBError, NotImplementedError):
                self._device.attach_kernel_driver(number)

    def _over(self, urb: Urb) -> bool:
        with self._lock:
            if urb in self._cancelled:
                self._cancelled.discard(urb)
                return True
            return False

    def _do(self, urb: Urb) -> None:
        if self._over(urb):
            return
        try:
            if urb.endpoint == 0:
                self._control(urb)
            elif urb.direction is Direction.IN:
                self._read(urb)
            else:
                urb.complete(actual=self._device.write(urb.address, urb.data, _PATIENCE))
        except usb.core.USBError as error:
            urb.complete(status=_status(error))
            if error.errno == errno.ENODEV:
                self._unplug()
        finally:
            self._over(urb)

    def _read(self, urb: Urb) -> None:
        # What came for a transfer that was given up meanwhile is the next one's.
        data = self._kept.pop(urb.address, None)
        while data is None:
            if self._over(urb):
                return
            with contextlib.suppress(usb.core.USBTimeoutError):
                data = self._device.read(urb.address, urb.length, _SLICE).tobytes()
        rest = data[urb.length :]
        if not urb.complete(data[: urb.length]):
            self._kept[urb.address] = data
        elif rest:
            self._kept[urb.address] = rest

    def _control(self, urb: Urb) -> None:
        setup = Setup.parse(urb.setup)
        what = (setup.type, setup.request)
        # These change what the host's own stack believes of the device: it has to do them.
        if what == SET_CONFIGURATION:
            self._device.set_configuration(setup.value)
            self._configuration = setup.value
            self._alternates.clear()
            urb.complete()
        elif what == SET_INTERFACE:
            self._device.set_interface_altsetting(setup.index, setup.value)
            self._alternates[setup.index] = setup.value
            urb.complete()
        elif what == CLEAR_FEATURE and setup.value == 0 and setup.index & 0xF:
            self._device.clear_halt(setup.index)
            urb.complete()
        else:
            incoming = setup.direction is Direction.IN
            data = setup.length if incoming else bytes(urb.data)
            answer = self._device.ctrl_transfer(
                setup.type, setup.request, setup.value, setup.index, data, _PATIENCE
            )
            urb.complete(answer.tobytes() if incoming else b"")


class _Worker:
    """Does calls one after the other, in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | _End] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def end(self) -> None:
        """After what is there; does not wait."""
        self._calls.put(_End())

    def _run(self) -> None:
        while not isinstance(call := self._calls.get(), _End):
            call()


def _status(error: Any) -> int:
    known = {
        errno.EPIPE: STALL,
        errno.ENODEV: NO_DEVICE,
        errno.EOVERFLOW: OVERFLOW,
        errno.ENOENT: NO_ENDPOINT,
        errno.ETIMEDOUT: -errno.ETIMEDOUT,
    }
    return known.get(error.errno, PROTOCOL)


def _known(one: Any) -> HostDevice:
    def serial() -> str | None:
        try:
            found: str | None = one.serial_number
        except (usb.core.USBError, ValueError, NotImplementedError):
            return None  # its strings cannot be read
        return found

    ports = tuple(one.port_numbers or ())
    return HostDevice(one.bus, ports, one.idVendor, one.idProduct, serial, one)


def _descriptor(one: Any) -> DeviceDescriptor:
    return DeviceDescriptor(
        vendor_id=one.idVendor,
        product_id=one.idProduct,
        device_class=one.bDeviceClass,
        subclass=one.bDeviceSubClass,
        protocol=one.bDeviceProtocol,
        release=one.bcdDevice,
    )


def _configuration(one: Any) -> Configuration:
    interfaces = (
        InterfaceDescriptor(
            each.bInterfaceNumber,
            each.bAlternateSetting,
            each.bInterfaceClass,
            each.bInterfaceSubClass,
            each.bInterfaceProtocol,
            endpoints=tuple(
                EndpointDescriptor(end.bEndpointAddress, end.bmAttributes, end.wMaxPacketSize)
                for end in each
            ),
        )
        for each in one
    )
    return Configuration(tuple(interfaces), one.bConfigurationValue)
