"""The base of devices that are Python objects.

A class declares interfaces and endpoints; handlers are methods. All is checked when the class is
made. Handlers run in the exporter's thread, with the device's lock held: they must not wait.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from pytest_hil.errors import NotThere
from pytest_hil.usbip.declare import (
    DeclarationError,
    Endpoint,
    In,
    Interface,
    Out,
    Setup,
    request,
)
from pytest_hil.usbip.descriptors import (
    MAX_STRING,
    Association,
    Configuration,
    DeviceDescriptor,
    InterfaceDescriptor,
    Kind,
    pack_bos,
    pack_languages,
    pack_string,
)
from pytest_hil.usbip.messages import Device, Direction, Speed
from pytest_hil.usbip.messages import Interface as WireInterface
from pytest_hil.usbip.pipe import InPipe, OutPipe, Pipe, Stall, open_pipe
from pytest_hil.usbip.scheduler import Scheduler
from pytest_hil.usbip.urb import TransferType, Urb, refuse

__all__ = [
    "DeclarationError",
    "In",
    "InPipe",
    "Interface",
    "Out",
    "OutPipe",
    "Setup",
    "Stall",
    "VirtualDevice",
    "request",
]

# bRequest (USB 2.0, table 9-4).
GET_STATUS, CLEAR_FEATURE, SET_FEATURE, SET_ADDRESS = 0, 1, 3, 5
GET_DESCRIPTOR, GET_CONFIGURATION, SET_CONFIGURATION = 6, 8, 9
GET_INTERFACE, SET_INTERFACE = 10, 11

_SPEEDS = (Speed.LOW, Speed.FULL, Speed.HIGH, Speed.SUPER)
_CONTROL_PACKET = {Speed.LOW: 8, Speed.FULL: 64, Speed.HIGH: 64, Speed.SUPER: 9}
_USB = {Speed.LOW: 0x0110, Speed.FULL: 0x0200, Speed.HIGH: 0x0200, Speed.SUPER: 0x0300}

Handler = Callable[..., Any]


class VirtualDevice:
    """A USB device with one configuration. Subclass it, and declare what it has::

        class Thermometer(VirtualDevice):
            vendor_id, product_id, product = 0x1209, 0x0010, "Thermometer"
            main = Interface(0xFF)
            command = main.bulk_out(1)
            reply = main.bulk_in(1)

            @command.received
            def on_command(self, data: bytes) -> None:
                self.reply.offer(b"21.5" if data == b"?" else b"what?")

    A wrong declaration raises DeclarationError when the class is made.
    """

    vendor_id: ClassVar[int] = 0x1209  # pid.codes, whose 0x0001 to 0x0010 are for tests
    product_id: ClassVar[int] = 0x0001
    bcd_device: ClassVar[int] = 0x0100
    manufacturer: str = "pytest-hil"
    product: str = ""
    serial_number: str = ""
    speed: Speed = Speed.HIGH
    device_class: ClassVar[int] = 0
    subclass: ClassVar[int] = 0
    protocol: ClassVar[int] = 0
    max_power_ma: ClassVar[int] = 100
    associations: ClassVar[tuple[Association, ...]] = ()

    declared: ClassVar[tuple[Interface, ...]] = ()
    _requests: ClassVar[dict[tuple[int, int], str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # As attributes are looked up: what a subclass declares again takes its base's place.
        members = {
            name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()
        }
        cls.declared = tuple(one for one in members.values() if isinstance(one, Interface))
        cls._requests = {
            key: name for name, value in members.items() for key in _requests_of(cls, name, value)
        }
        if cls.declared:
            _check(cls)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.scheduler = Scheduler()
        # What handlers raised; the exporter tells of it as well.
        self.errors: list[Exception] = []
        self._unplug: Callable[[], None] | None = None
        self._imported = False
        self._configured = 0
        self._alternates: dict[int, int] = {}
        self._remote_wakeup = False
        every = [one for interface in self.declared for one in interface.endpoints]
        self.pipes: dict[Endpoint, Pipe] = {}
        for one in every:
            self.pipes[one] = open_pipe(self, one)
        # By their addresses.
        self._active: dict[int, Pipe] = {}
        self._pending_control: dict[int, Urb] = {}
        self.configuration = self._describe_configuration()

    def __repr__(self) -> str:
        name = self.product or type(self).__name__
        return f"<{name} {self.vendor_id:04x}:{self.product_id:04x}>"

    # --- for the test ---

    @property
    def configured(self) -> bool:
        """Whether the importer's kernel has configured it."""
        return bool(self._configured)

    def wait_configured(self, timeout: float = 10.0) -> None:
        """Until the importer's kernel has configured it. Raises NotThere."""
        with self.changed:
            if not self.changed.wait_for(lambda: self._configured, timeout):
                raise NotThere(f"nobody configured {self!r} within {timeout:g} s")

    def unplug(self) -> None:
        """Take it away from its importer and from the exporter."""
        if self._unplug is not None:
            self._unplug()

    def check(self) -> None:
        """Raise what a handler raised first, if one did."""
        if self.errors:
            raise self.errors[0]

    # --- for subclasses ---

    def on_configured(self) -> None:
        """It was configured."""

    def on_alternate(self, interface: int, alternate: int) -> None:
        """An interface got another setting."""

    def on_released(self) -> None:
        """The importer is gone."""

    def on_cancel(self, urb: Urb) -> None:
        """A transfer of a ``urb`` handler is to be forgotten."""

    def descriptor(self, kind: int, index: int, interface: int) -> bytes | None:  # noqa: ARG002
        """A class-specific descriptor that somebody asks for; None: there is none."""
        return None

    def period(self, endpoint: Endpoint) -> float:
        return endpoint.period(self.speed)

    # --- what it says of itself ---

    @property
    def device_descriptor(self) -> DeviceDescriptor:
        strings = self._strings()
        return DeviceDescriptor(
            vendor_id=self.vendor_id,
            product_id=self.product_id,
            usb=_USB[self.speed],
            device_class=self.device_class,
            subclass=self.subclass,
            protocol=self.protocol,
            max_packet=_CONTROL_PACKET[self.speed],
            release=self.bcd_device,
            manufacturer=strings.get(self.manufacturer, 0),
            product=strings.get(self._name(), 0),
            serial=strings.get(self.serial_number, 0),
        )

    def _name(self) -> str:
        return self.product or type(self).__name__

    def _strings(self) -> dict[str, int]:
        texts = dict.fromkeys((self.manufacturer, self._name(), self.serial_number))
        return {text: index for index, text in enumerate(filter(None, texts), 1)}

    def _describe_configuration(self) -> Configuration:
        per_unit = 8 if self.speed is Speed.SUPER else 2
        interfaces = tuple(_describe(one, self) for one in self.declared)
        return Configuration(
            tuple(sorted(interfaces, key=lambda one: (one.number, one.alternate))),
            max_power=self.max_power_ma // per_unit,
            associations=self.associations,
        )

    def describe(self) -> Device:
        first = [one for one in self.configuration.interfaces if one.alternate == 0]
        triples = [WireInterface(one.interface_class, one.subclass, one.protocol) for one in first]
        return Device(
            busid="",
            busnum=0,
            devnum=0,
            speed=self.speed,
            vendor_id=self.vendor_id,
            product_id=self.product_id,
            bcd_device=self.bcd_device,
            device_class=self.device_class,
            subclass=self.subclass,
            protocol=self.protocol,
            configuration_value=self._configured,
            configurations=1,
            interface_count=len(first),
            interfaces=tuple(triples),
        )

    # --- what the exporter calls ---

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        if endpoint == 0:
            return TransferType.CONTROL
        pipe = self._active.get(endpoint | direction << 7)
        return None if pipe is None else pipe.endpoint.type

    def plugged(self, unplug: Callable[[], None]) -> None:
        self._unplug = unplug

    def imported(self) -> None:
        with self._lock:
            self._imported = True
            self._configure(0)

    def submit(self, urb: Urb) -> None:
        self.submit_to(urb.address, urb)

    def submit_to(self, address: int, urb: Urb) -> None:
        """:meth:`submit` to the endpoint that has this address here."""
        with self._lock:
            try:
                if (pipe := self._active.get(address)) is not None:
                    pipe.submit(urb)
                elif address & 0xF == 0:
                    self._control(urb)
                else:
                    refuse(urb)
            except Stall:
                urb.stall()
            except Exception as error:
                self.errors.append(error)
                urb.stall()
                raise

    def cancel(self, urb: Urb) -> None:
        self.cancel_at(urb.address, urb)

    def cancel_at(self, address: int, urb: Urb) -> None:
        """:meth:`cancel` at the endpoint that has this address here."""
        with self._lock:
            if (pipe := self._active.get(address)) is not None:
                pipe.cancel(urb)
            self.on_cancel(urb)

    def released(self) -> None:
        with self._lock:
            self._imported = False
            self._configure(0)
            self.scheduler.clear()
            self.on_released()

    # --- control transfers ---

    def _control(self, urb: Urb) -> None:
        setup = Setup.parse(urb.setup)
        data = b"" if setup.direction is Direction.IN else bytes(urb.data)
        answer = self.control(setup, data)
        if answer is None:
            urb.stall()
        elif setup.direction is Direction.IN:
            # A handler may say more than fits: the rest is not asked for.
            urb.complete(answer[: min(setup.length, urb.length)])
        else:
            urb.complete()

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        """What a request is answered with (b"" for an OUT); None: a stall. With the lock held."""
        name = self._requests.get((setup.type, setup.request))
        if name is not None:
            handler = getattr(self, name)
            if setup.direction is Direction.IN:
                return bytes(handler(setup))
            handler(setup, data)
            return b""
        if setup.type & 0x60:
            return None  # class or vendor, and nobody handles it
        return self._standard(setup)

    def locked_control(self, setup: Setup, data: bytes) -> bytes | None:
        """:meth:`control` for who does not hold the lock."""
        with self._lock:
            return self.control(setup, data)

    def _standard(self, setup: Setup) -> bytes | None:
        recipient = setup.type & 0x1F
        if setup.request == GET_DESCRIPTOR and setup.type & 0x80:
            return self._get_descriptor(setup)
        match recipient, setup.request:
            case 0, _ if setup.request == SET_CONFIGURATION:
                if setup.value not in (0, self.configuration.value):
                    return None
                self._configure(setup.value)
                return b""
            case 0, _ if setup.request == GET_CONFIGURATION:
                return bytes([self._configured])
            case 0, _ if setup.request == GET_STATUS:
                return bytes([int(self._remote_wakeup) << 1, 0])
            case 0, _ if setup.request in (SET_FEATURE, CLEAR_FEATURE):
                self._remote_wakeup = setup.request == SET_FEATURE
                return b""
            case 0, _ if setup.request == SET_ADDRESS:
                return b""
            case 1, _:
                return self._of_interface(setup)
            case 2, _:
                return self._of_endpoint(setup)
        # SuperSpeed's SET_SEL and SET_ISOCH_DELAY say nothing that matters here.
        return b"" if setup.request in (0x30, 0x31) and recipient == 0 else None

    def _get_descriptor(self, setup: Setup) -> bytes | None:
        kind, index = setup.value >> 8, setup.value & 0xFF
        if kind == Kind.DEVICE:
            return self.device_descriptor.pack()
        if kind == Kind.CONFIGURATION:
            return self.configuration.pack() if index == 0 else None
        if kind == Kind.STRING:
            if index == 0:
                return pack_languages()
            text = {number: text for text, number in self._strings().items()}.get(index)
            return None if text is None else pack_string(text)
        if kind == Kind.QUALIFIER and self.speed is Speed.HIGH:
            return self.device_descriptor.pack_qualifier()
        if kind == Kind.OTHER_SPEED and self.speed is Speed.HIGH:
            data = bytearray(self.configuration.pack())
            data[1] = Kind.OTHER_SPEED
            return bytes(data)
        if kind == Kind.BOS and self.speed is Speed.SUPER:
            return pack_bos(super_speed=True)
        return self.descriptor(kind, index, setup.index & 0xFF)

    def _of_interface(self, setup: Setup) -> bytes | None:
        number = setup.index & 0xFF
        if not self._configured or number not in self._alternates:
            return None
        if setup.request == GET_INTERFACE:
            return bytes([self._alternates[number]])
        if setup.request == GET_STATUS:
            return bytes(2)
        if setup.request == SET_INTERFACE:
            if self.configuration.alternate(number, setup.value) is None:
                return None
            self._alternates[number] = setup.value
            self._activate(number)
            self.on_alternate(number, setup.value)
            return b""
        return None

    def _of_endpoint(self, setup: Setup) -> bytes | None:
        if setup.index & 0xF == 0:
            return bytes(2) if setup.request == GET_STATUS else b""
        pipe = self._active.get(setup.index & 0x8F)
        if pipe is None:
            return None
        if setup.request == GET_STATUS:
            return bytes([int(pipe.halted), 0])
        if setup.request == SET_FEATURE and setup.value == 0:
            pipe.halt()
            return b""
        if setup.request == CLEAR_FEATURE and setup.value == 0:
            pipe.halted = False
            self.on_clear_halt(pipe)
            return b""
        return None

    def on_clear_halt(self, pipe: Pipe) -> None:
        """The importer cleared an endpoint's halt."""

    def _configure(self, value: int) -> None:
        for pipe in self.pipes.values():
            pipe.shut()
        self._active.clear()
        self._configured = value
        self._alternates = dict.fromkeys(self.configuration.numbers, 0) if value else {}
        for number in self._alternates:
            self._activate(number)
        if value:
            self.on_configured()
        self.changed.notify_all()

    def _activate(self, number: int) -> None:
        """Its pipes are those of the setting that it has now."""
        for declared, wire in self._settings():
            if wire.number != number:
                continue
            now = wire.alternate == self._alternates[number]
            for endpoint in declared.endpoints:
                pipe = self.pipes[endpoint]
                if self._active.get(endpoint.address) is pipe:
                    del self._active[endpoint.address]
                pipe.shut()
                if now:
                    self._active[endpoint.address] = pipe

    def _settings(self) -> Iterator[tuple[Interface, InterfaceDescriptor]]:
        for declared in self.declared:
            yield declared, _describe(declared, self)


def _requests_of(cls: type, name: str, value: object) -> set[tuple[int, int]]:
    """The requests that a method handles, and still handles when a subclass overrides it."""
    if not callable(value):
        return set()
    every = (vars(base).get(name) for base in cls.__mro__)
    return {key for one in every for key in getattr(one, "hil_requests", ())}


def _describe(interface: Interface, device: VirtualDevice) -> InterfaceDescriptor:
    number, alternate = _numbers(device.declared)[interface]
    return InterfaceDescriptor(
        number=number,
        alternate=alternate,
        interface_class=interface.interface_class,
        subclass=interface.subclass,
        protocol=interface.protocol,
        extra=interface.extra,
        endpoints=tuple(one.descriptor(device.speed) for one in interface.endpoints),
    )


def _numbers(declared: tuple[Interface, ...]) -> dict[Interface, tuple[int, int]]:
    """(bInterfaceNumber, bAlternateSetting) of each, in the order in which they stand."""
    mains: dict[Interface, int] = {}
    found: dict[Interface, tuple[int, int]] = {}
    settings: dict[Interface, int] = {}
    for one in declared:
        main = one.main or one
        number = mains.setdefault(main, len(mains))
        found[one] = (number, settings.get(main, 0))
        settings[main] = settings.get(main, 0) + 1
    return found


def _check(cls: type[VirtualDevice]) -> None:
    """Raises DeclarationError for the first thing that is wrong."""

    def wrong(attribute: str, message: str) -> None:
        raise DeclarationError(f"{cls.__name__}.{attribute}: {message}")

    if cls.speed not in _SPEEDS:
        allowed = ", ".join(one.name for one in _SPEEDS)
        wrong("speed", f"{cls.speed!r}; allowed: {allowed}")
    for name in ("vendor_id", "product_id", "bcd_device"):
        if not 0 <= getattr(cls, name) <= 0xFFFF:
            wrong(name, f"{getattr(cls, name):#x} does not fit into 16 bits")
    for name in ("manufacturer", "product", "serial_number"):
        text = getattr(cls, name)
        if isinstance(text, str) and len(text.encode("utf-16-le")) // 2 > MAX_STRING:
            wrong(name, f"{len(text)} characters; a string descriptor has room for {MAX_STRING}")
    if not 0 <= cls.max_power_ma <= 500:
        wrong("max_power_ma", f"{cls.max_power_ma}; 0 to 500 are allowed")
    _check_endpoints(cls, wrong)


def _check_endpoints(cls: type[VirtualDevice], wrong: Callable[[str, str], None]) -> None:
    numbers = _numbers(cls.declared)
    taken: dict[int, tuple[int, str]] = {}
    for interface in cls.declared:
        number, _alternate = numbers[interface]
        seen: dict[int, str] = {}
        for one in interface.endpoints:
            name = one.name or f"endpoint {one.number}"
            if message := one.wrong(cls.speed):
                wrong(name, message)
            way = one.direction.name
            if one.address in seen:
                wrong(name, f"endpoint {one.number} {way} is {seen[one.address]} already")
            other = taken.get(one.address)
            if other is not None and other[0] != number:
                wrong(name, f"endpoint {one.number} {way} is {other[1]} of another interface")
            seen[one.address] = name
            taken.setdefault(one.address, (number, name))
            for handler in one.handlers.values():
                if not hasattr(cls, handler):
                    wrong(name, f"its handler {handler} is gone")
