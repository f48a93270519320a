"""A device of this host, exported as it is, by libusb's own asynchronous transfers.

As many transfers at once as the importer has, each can be given up, isochronous ones too: what
pyusb's blocking calls (:mod:`pytest_hil.usbip.passthrough`) cannot do.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import queue
import threading
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from pytest_hil.errors import HilError, InfrastructureError, ToolMissing
from pytest_hil.usbip import host_device
from pytest_hil.usbip.declare import Setup
from pytest_hil.usbip.descriptors import (
    Configuration,
    DescriptorError,
    DeviceDescriptor,
    Kind,
    parse_configuration,
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
    SHORT,
    SHUTDOWN,
    STALL,
    TOO_LARGE,
    Device,
    Direction,
    IsoPacket,
)
from pytest_hil.usbip.urb import TransferType, Urb

try:
    import usb1
except ImportError as missing:
    raise InfrastructureError(
        "libusb1 is not installed", mend="install it: pip install 'pytest-hil[libusb1]'"
    ) from missing

# URB_SHORT_NOT_OK and URB_ZERO_PACKET of include/linux/usb.h: on the wire as they are.
_SHORT_NOT_OK, _ZERO_PACKET = 0x01, 0x40

# Milliseconds for a control transfer of ours.
_PATIENCE = 5000
# Seconds until transfers that were given up have to be over.
_END = 10.0

_STATUSES = {
    usb1.TRANSFER_COMPLETED: 0,
    usb1.TRANSFER_ERROR: PROTOCOL,
    usb1.TRANSFER_TIMED_OUT: -errno.ETIMEDOUT,
    # By us, to give its endpoint another setting. One that was unlinked is not told of any more.
    usb1.TRANSFER_CANCELLED: SHUTDOWN,
    usb1.TRANSFER_STALL: STALL,
    usb1.TRANSFER_NO_DEVICE: NO_DEVICE,
    usb1.TRANSFER_OVERFLOW: OVERFLOW,
}

# What is not taken at all.
_REFUSALS = {
    usb1.USBErrorNoDevice: NO_DEVICE,
    usb1.USBErrorNotFound: NO_ENDPOINT,
    usb1.USBErrorNoMem: TOO_LARGE,
    usb1.USBErrorInvalidParam: -errno.EINVAL,
    usb1.USBErrorNotSupported: -errno.EOPNOTSUPP,
}

# libusb1 has these since 3.3, and the way to wake who waits for events since 3.1.
_HAS_FLAGS = hasattr(usb1.USBTransfer, "setAddZeroPacket")
_HAS_INTERRUPT = hasattr(usb1.USBContext, "interruptEventHandler")
# Seconds until it is seen, without that, that the events are to end.
_TURN = 0.5


class AsyncPassthrough:
    """A real device as something to export; see :meth:`find`. A context manager.

    While somebody has imported it, this host's own drivers let it go.
    """

    def __init__(self, device: Any, context: Any) -> None:
        self._device = device
        self._context = context
        self._name = f"{device.getVendorID():04x}:{device.getProductID():04x}"
        self._ids = device.getVendorID(), device.getProductID()
        self._handle = self._open()
        # Held for what libusb does at once; events and callbacks never come while it is.
        self._changed = threading.Condition()
        self._transfers: dict[Urb, Any] = {}
        # Control transfers that are not libusb's yet, and how many calls of them are to come.
        self._queued: set[Urb] = set()
        self._ahead = 0
        self._claimed: list[int] = []
        self._detached: list[int] = []
        self._alternates: dict[int, int] = {}
        self._configuration = 0
        self._unplug: Callable[[], None] = lambda: None
        self._closed = False
        self._ending = False
        self.descriptor, self.configurations = self._describe_all()
        self._before = self._handle.getConfiguration()
        self._watch()
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=work, name="hil-libusb1", daemon=True)
            for work in (self._work, self._handle_events)
        ]
        for thread in self._threads:
            thread.start()
        # libusb must not be taken down under the feet of a thread of ours.
        atexit.register(self.close)

    def __repr__(self) -> str:
        return f"<AsyncPassthrough {self._name}>"

    @classmethod
    def find(
        cls,
        *,
        vendor_id: int | None = None,
        product_id: int | None = None,
        serial: str | None = None,
        bus_path: str | None = None,
    ) -> AsyncPassthrough:
        """The one device of this host that fits. ``bus_path`` is "1-2.3", as in sysfs.

        Raises NotThere when none fits, or several do, InfrastructureError when it may not be used.
        """
        context = usb1.USBContext()
        try:
            context.open()
        except OSError:
            raise ToolMissing("libusb", package="libusb-1.0-0") from None
        try:
            every = [_known(one) for one in context.getDeviceList(skip_on_error=True)]
            found = host_device.choose(
                every, vendor_id=vendor_id, product_id=product_id, serial=serial, bus_path=bus_path
            )
            return cls(found.device, context)
        except BaseException:
            context.close()
            raise

    def _open(self) -> Any:
        try:
            return self._device.open()
        except usb1.USBErrorAccess as error:
            raise host_device.not_permitted(self, *self._ids) from error
        except usb1.USBError as error:
            raise InfrastructureError(f"{self!r} cannot be opened: {error}") from error

    def _describe_all(self) -> tuple[DeviceDescriptor, list[Configuration]]:
        def read(kind: int, index: int, length: int) -> bytes:
            value = kind << 8 | index
            return bytes(self._handle.controlRead(0x80, 6, value, 0, length, _PATIENCE))

        try:
            device = DeviceDescriptor.parse(read(Kind.DEVICE, 0, 18))
            found = []
            for index in range(device.configurations):
                head = read(Kind.CONFIGURATION, index, 9)
                total = int.from_bytes(head[2:4], "little")
                found.append(parse_configuration(read(Kind.CONFIGURATION, index, total)))
        except usb1.USBError as error:
            raise InfrastructureError(f"{self!r} does not say what it is: {error}") from error
        except DescriptorError as error:
            raise InfrastructureError(f"{self!r} says nonsense of itself: {error}") from error
        return device, found

    def close(self) -> None:
        """Let go of it. May be called twice."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        self._unplug()
        self.released()
        self._calls.put(None)
        worker, events = self._threads
        worker.join()
        # Only now: the worker waits for transfers' ends.
        self._ending = True
        if _HAS_INTERRUPT:
            self._context.interruptEventHandler()
        events.join()
        self._handle.close()
        self._context.close()

    def __enter__(self) -> AsyncPassthrough:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- what the exporter calls ---

    def describe(self) -> Device:
        return host_device.describe(
            self.descriptor,
            self.configurations,
            speed=self._device.getDeviceSpeed(),
            value=self._configuration,
        )

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        these = [one for one in self.configurations if one.value == self._configuration]
        return host_device.transfer_type(these, self._alternates, endpoint, direction)

    def plugged(self, unplug: Callable[[], None]) -> None:
        self._unplug = unplug

    def imported(self) -> None:
        self._configuration = 0
        self._alternates.clear()

    def submit(self, urb: Urb) -> None:
        if urb.endpoint == 0:
            with self._changed:
                # Those that come after one of the worker's wait for it: they are in order.
                behind = self._ahead > 0 or _is_ours(urb)
                if behind:
                    self._ahead += 1
                    self._queued.add(urb)
            if behind:
                self._calls.put(partial(self._control, urb))
                return
        self._begin(urb)

    def cancel(self, urb: Urb) -> None:
        with self._changed:
            self._queued.discard(urb)
        self._give_up([urb])

    def released(self) -> None:
        with self._changed:
            self._queued.clear()
            # The next importer may have some before the worker comes to it.
            these = frozenset(self._transfers)
        self._calls.put(partial(self._let_go, these))

    # --- transfers ---

    def _begin(self, urb: Urb) -> None:
        """Give it to libusb."""
        status = PROTOCOL
        try:
            transfer = self._prepared(urb)
            with self._changed:
                self._transfers[urb] = transfer
                transfer.submit()
            return
        except usb1.USBError as error:
            status = _REFUSALS.get(type(error), PROTOCOL)
        except ValueError:
            pass  # nothing that libusb1 can say
        self._forget(urb)
        urb.complete(status=status)
        if status == NO_DEVICE:
            self._is_gone()

    def _prepared(self, urb: Urb) -> Any:
        transfer = self._handle.getTransfer(len(urb.iso))
        incoming = urb.direction is Direction.IN
        ended = partial(self._ended, urb)
        if urb.endpoint == 0:
            setup = Setup.parse(urb.setup)
            fields = setup.type, setup.request, setup.value, setup.index
            what = setup.length if incoming else bytes(urb.data)
            transfer.setControl(*fields, what, callback=ended)
        elif urb.type is TransferType.ISO:
            lengths = [one.length for one in urb.iso]
            if not lengths:
                raise usb1.USBErrorInvalidParam
            # libusb has no gaps between packets; the wire may.
            transfer.setIsochronous(
                urb.address,
                sum(lengths) if incoming else _packed(urb),
                callback=ended,
                iso_transfer_length_list=lengths,
            )
        else:
            fill = transfer.setBulk if urb.type is TransferType.BULK else transfer.setInterrupt
            fill(urb.address, urb.length if incoming else bytearray(urb.data), callback=ended)
            self._set_flags(transfer, urb)
        return transfer

    def _set_flags(self, transfer: Any, urb: Urb) -> None:
        incoming = urb.direction is Direction.IN
        zero = bool(urb.flags & _ZERO_PACKET) and not incoming
        if _HAS_FLAGS:
            transfer.setShortIsError(bool(urb.flags & _SHORT_NOT_OK) and incoming)
            transfer.setAddZeroPacket(zero)
        elif zero and self._ends_full(urb):
            # Without the empty packet the device would wait for more.
            raise usb1.USBErrorNotSupported

    def _ends_full(self, urb: Urb) -> bool:
        packet = int(self._device.getMaxPacketSize(urb.address))
        return urb.length > 0 and urb.length % packet == 0

    def _give_up(self, urbs: Iterable[Urb]) -> None:
        with self._changed:
            for transfer in [self._transfers[urb] for urb in urbs if urb in self._transfers]:
                # Not found: it has just ended, and its callback is on its way.
                with contextlib.suppress(usb1.USBError):
                    transfer.cancel()

    def _stop(self, which: Callable[[Urb], bool]) -> None:
        """Give up those that are in flight now, and wait for their ends. In the worker."""
        with self._changed:
            these = [urb for urb in self._transfers if which(urb)]
            self._give_up(these)
            self._changed.wait_for(lambda: self._transfers.keys().isdisjoint(these), _END)

    def _forget(self, urb: Urb) -> None:
        with self._changed:
            self._transfers.pop(urb, None)
            self._changed.notify_all()

    def _ended(self, urb: Urb, transfer: Any) -> None:
        """In the events' thread."""
        self._forget(urb)
        status = _STATUSES.get(transfer.getStatus(), PROTOCOL)
        if urb.type is TransferType.ISO:
            self._iso_ended(urb, transfer, status)
        else:
            actual = transfer.getActualLength()
            incoming = urb.direction is Direction.IN
            if status == PROTOCOL and incoming and urb.flags & _SHORT_NOT_OK:
                status = SHORT if actual < urb.length else PROTOCOL
            data = bytes(transfer.getBuffer()[:actual]) if incoming else b""
            urb.complete(data, status=status, actual=actual)
        if status == NO_DEVICE:
            self._is_gone()

    def _iso_ended(self, urb: Urb, transfer: Any, status: int) -> None:
        parts: list[bytes] = []
        done: list[IsoPacket] = []
        looks = transfer.getISOSetupList()
        data = transfer.iterISO() if urb.direction is Direction.IN else None
        for packet, look in zip(urb.iso, looks, strict=True):
            own = _STATUSES.get(look["status"], PROTOCOL)
            actual = look["actual_length"]
            if data is not None:
                parts.append(bytes(next(data)[1]))
            elif own == 0:
                actual = packet.length  # usbfs does not count what went out
            done.append(replace(packet, actual=actual, status=own))
        urb.complete(
            b"".join(parts),
            status=status,
            actual=sum(one.actual for one in done),
            iso=done,
            errors=sum(one.status != 0 for one in done),
        )

    # --- its end ---

    def _watch(self) -> None:
        """For when it is pulled out while no transfer of it would notice."""
        if usb1.hasCapability(usb1.CAP_HAS_HOTPLUG):
            self._context.hotplugRegisterCallback(
                self._left, events=usb1.HOTPLUG_EVENT_DEVICE_LEFT, flags=0
            )

    def _left(self, _context: Any, device: Any, _event: int) -> bool:
        """In the events' thread."""
        if _place(device) == _place(self._device):
            self._calls.put(self._drop)
        return False

    def _is_gone(self) -> None:
        # The kernel says it of an endpoint too whose interface was set anew: the worker looks.
        self._calls.put(self._drop_if_gone)

    def _drop_if_gone(self) -> None:
        get_status = 0x80, 0, 0, 0, 2
        try:
            self._handle.controlRead(*get_status, _PATIENCE)
        except usb1.USBErrorNoDevice:
            self._drop()
        except usb1.USBError:
            pass  # it is there, and says no

    def _drop(self) -> None:
        # Its exporter does not answer: nobody here can mend that.
        with contextlib.suppress(HilError):
            self._unplug()

    def _handle_events(self) -> None:
        handle = self._context.handleEvents
        if not _HAS_INTERRUPT:
            handle = partial(self._context.handleEventsTimeout, _TURN)
        while not self._ending:
            try:
                handle()
            except usb1.USBErrorInterrupted:
                continue
            except usb1.USBError:
                self._calls.put(self._drop)
                return

    # --- what changes the device, in the worker ---

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call()

    def _control(self, urb: Urb) -> None:
        """One that changes the device, or one that came behind it."""
        with self._changed:
            wanted = urb in self._queued
            self._queued.discard(urb)
        try:
            if wanted and _is_ours(urb):
                self._change(urb)
            elif wanted:
                self._begin(urb)
        finally:
            with self._changed:
                self._ahead -= 1

    def _change(self, urb: Urb) -> None:
        setup = Setup.parse(urb.setup)
        try:
            if setup.request == SET_CONFIGURATION[1]:
                self._configure(setup.value)
            elif setup.request == SET_INTERFACE[1]:
                self._set_interface(setup.index, setup.value)
            else:
                self._handle.clearHalt(setup.index)
        except usb1.USBErrorNoDevice:
            urb.complete(status=NO_DEVICE)
            self._is_gone()
        except usb1.USBError:
            urb.stall()
        else:
            urb.complete()

    def _set_interface(self, number: int, alternate: int) -> None:
        now = self._alternates.get(number, 0)
        addresses = {
            each.address
            for configuration in self.configurations
            for one in configuration.interfaces
            if configuration.value == self._configuration
            and (one.number, one.alternate) == (number, now)
            for each in one.endpoints
        }
        self._stop(lambda urb: urb.address in addresses)
        self._handle.setInterfaceAltSetting(number, alternate)
        self._alternates[number] = alternate

    def _configure(self, value: int) -> None:
        """The drivers of this host go, the configuration comes, and the interfaces are ours."""
        wanted = next((one for one in self.configurations if one.value == value), None)
        if wanted is None and value:
            raise usb1.USBErrorNotFound
        self._stop(lambda urb: urb.endpoint != 0)
        self._release()
        numbers = wanted.numbers if wanted else []
        self._detach(numbers)
        # Setting what is set already resets the device, and some do not survive that well.
        if self._handle.getConfiguration() != value:
            self._handle.setConfiguration(value or -1)
            # Now that it is configured, drivers may have come anew.
            self._detach(numbers)
        for number in numbers:
            self._handle.claimInterface(number)
            self._claimed.append(number)
            if wanted and wanted.alternate(number, 1) is not None:
                self._handle.setInterfaceAltSetting(number, 0)
        self._alternates.clear()
        self._configuration = value

    def _detach(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            with contextlib.suppress(usb1.USBError):
                if self._handle.kernelDriverActive(number):
                    self._handle.detachKernelDriver(number)
                    self._detached.append(number)

    def _release(self) -> None:
        claimed, self._claimed = self._claimed, []
        for number in claimed:
            with contextlib.suppress(usb1.USBError):
                self._handle.releaseInterface(number)

    def _let_go(self, urbs: frozenset[Urb]) -> None:
        """The device is this host's again, as it was."""
        self._stop(urbs.__contains__)
        self._release()
        self._configuration = 0
        self._alternates.clear()
        with contextlib.suppress(usb1.USBError):
            if self._handle.getConfiguration() != self._before:
                self._handle.setConfiguration(self._before or -1)
        detached, self._detached = self._detached, []
        for number in dict.fromkeys(detached):
            with contextlib.suppress(usb1.USBError):
                self._handle.attachKernelDriver(number)


def _is_ours(urb: Urb) -> bool:
    """Whether this host's kernel has to do it, for it believes that it knows the device."""
    setup = Setup.parse(urb.setup)
    what = setup.type, setup.request
    if what == CLEAR_FEATURE:
        return setup.value == 0 and bool(setup.index & 0xF)
    return what in (SET_CONFIGURATION, SET_INTERFACE)


def _place(device: Any) -> tuple[int, int]:
    """Its bus and its address there."""
    return device.getBusNumber(), device.getDeviceAddress()


def _packed(urb: Urb) -> bytearray:
    parts = (urb.data[one.offset : one.offset + one.length] for one in urb.iso)
    return bytearray(b"".join(parts))


def _known(one: Any) -> HostDevice:
    def serial() -> str | None:
        try:
            found: str | None = one.getSerialNumber()
        except usb1.USBError:
            return None
        return found

    return HostDevice(
        one.getBusNumber(),
        tuple(one.getPortNumberList()),
        one.getVendorID(),
        one.getProductID(),
        serial,
        one,
    )
