"""A device of this host, exported as it is: through pyusb, and whatever backend that has.

Each endpoint has a thread, because pyusb's transfers block; they stay in order on an endpoint, one
at a time. Isochronous endpoints are left out: pyusb does not tell how much each packet brought.
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

from pytest_hil.errors import InfrastructureError, NotThere, ToolMissing
from pytest_hil.usbip.declare import Setup
from pytest_hil.usbip.messages import (
    NO_DEVICE,
    NO_ENDPOINT,
    OVERFLOW,
    PROTOCOL,
    STALL,
    Device,
    Direction,
    Interface,
    Speed,
)
from pytest_hil.usbip.urb import TransferType, Urb

# Milliseconds. An IN waits in slices, between which it may be cancelled: a slice that ends without
# data loses none. An OUT that nobody takes ends after the longer one.
_SLICE = 200
_PATIENCE = 10_000

_SET_CONFIGURATION, _SET_INTERFACE, _CLEAR_FEATURE = (0x00, 9), (0x01, 11), (0x02, 1)

_RULES = "/etc/udev/rules.d/70-pytest-hil.rules"

_SPEEDS = {1: Speed.LOW, 2: Speed.FULL, 3: Speed.HIGH, 4: Speed.SUPER, 5: Speed.SUPER_PLUS}

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
        wanted: dict[str, Any] = {}
        if vendor_id is not None:
            wanted["idVendor"] = vendor_id
        if product_id is not None:
            wanted["idProduct"] = product_id
        if serial is not None:
            wanted["serial_number"] = serial
        try:
            every = list(usb.core.find(find_all=True, backend=backend))
        except usb.core.NoBackendError:
            raise ToolMissing("libusb", package="libusb-1.0-0") from None
        found = [one for one in every if _fits(one, wanted, bus_path)]
        if len(found) == 1:
            return cls(found[0])
        text = ", ".join(
            f"{key}={value:#06x}" if isinstance(value, int) else f"{key}={value}"
            for key, value in {**wanted, "bus_path": bus_path}.items()
            if value is not None
        )
        there = "".join(f"\n    {_line(one)}" for one in found or every) or " none"
        if found:
            raise NotThere(
                f"several USB devices are {text or 'there'}:{there}",
                mend="say which: by serial= or bus_path=",
            )
        raise NotThere(f"no USB device is {text}; there are:{there}")

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
            rule = (
                f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{one.idVendor:04x}", '
                f'ATTR{{idProduct}}=="{one.idProduct:04x}", MODE="0660", TAG+="uaccess"'
            )
            raise InfrastructureError(
                f"this user may not use {self!r}",
                mend=f"write into {_RULES}:\n    {rule}\n  then: udevadm control --reload && "
                "udevadm trigger, and plug it in again",
            ) from error

    # --- what the exporter calls ---

    def describe(self) -> Device:
        one = self._device
        interfaces = [each for each in one[0] if each.bAlternateSetting == 0]
        triples = tuple(
            Interface(each.bInterfaceClass, each.bInterfaceSubClass, each.bInterfaceProtocol)
            for each in interfaces
        )
        return Device(
            busid="",
            busnum=0,
            devnum=0,
            speed=_SPEEDS.get(one.speed, Speed.FULL),
            vendor_id=one.idVendor,
            product_id=one.idProduct,
            bcd_device=one.bcdDevice,
            device_class=one.bDeviceClass,
            subclass=one.bDeviceSubClass,
            protocol=one.bDeviceProtocol,
            configuration_value=one[0].bConfigurationValue,
            configurations=one.bNumConfigurations,
            interface_count=len(triples),
            interfaces=triples,
        )

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        if endpoint == 0:
            return TransferType.CONTROL
        address = endpoint | (0x80 if direction is Direction.IN else 0)
        for configuration in self._device:
            if self._configuration not in (0, configuration.bConfigurationValue):
                continue
            for interface in configuration:
                now = self._alternates.get(interface.bInterfaceNumber, 0)
                if interface.bAlternateSetting != now:
                    continue
                for each in interface:
                    if each.bEndpointAddress == address:
                        return TransferType(each.bmAttributes & 3)
        return None

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
        if what == _SET_CONFIGURATION:
            self._device.set_configuration(setup.value)
            self._configuration = setup.value
            self._alternates.clear()
            urb.complete()
        elif what == _SET_INTERFACE:
            self._device.set_interface_altsetting(setup.index, setup.value)
            self._alternates[setup.index] = setup.value
            urb.complete()
        elif what == _CLEAR_FEATURE and setup.value == 0 and setup.index & 0xF:
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


def _path(one: Any) -> str:
    ports = one.port_numbers or ()
    return f"{one.bus}-{'.'.join(map(str, ports))}" if ports else f"usb{one.bus}"


def _line(one: Any) -> str:
    return f"{_path(one)}  {one.idVendor:04x}:{one.idProduct:04x}"


def _fits(one: Any, wanted: dict[str, Any], bus_path: str | None) -> bool:
    if bus_path is not None and _path(one) != bus_path:
        return False
    for key, value in wanted.items():
        try:
            if getattr(one, key) != value:
                return False
        except (usb.core.USBError, ValueError, NotImplementedError):
            return False  # its strings cannot be read
    return True
