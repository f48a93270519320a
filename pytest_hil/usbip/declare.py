"""What a virtual device is made of, as its class declares it, and the checks of that.

Limits: USB 2.0, §5.5 to §5.8 and §9.6; USB 3.2, §8.12 and §9.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, overload

from pytest_hil.usbip.descriptors import EndpointDescriptor, companion
from pytest_hil.usbip.messages import Direction, Speed
from pytest_hil.usbip.urb import TransferType

if TYPE_CHECKING:
    from pytest_hil.usbip.pipe import InPipe, OutPipe, Pipe

Handler = TypeVar("Handler", bound=Callable[..., Any])

_ISO, _BULK, _INTERRUPT = TransferType.ISO, TransferType.BULK, TransferType.INTERRUPT

# The largest packet by speed and type; None: there is no such endpoint.
_LARGEST: dict[Speed, dict[TransferType, int]] = {
    Speed.LOW: {_INTERRUPT: 8},
    Speed.FULL: {_INTERRUPT: 64, _BULK: 64, _ISO: 1023},
    Speed.HIGH: {_INTERRUPT: 1024, _BULK: 512, _ISO: 1024},
    Speed.SUPER: {_INTERRUPT: 1024, _BULK: 1024, _ISO: 1024},
}
_BULK_SIZES = {Speed.FULL: (8, 16, 32, 64), Speed.HIGH: (512,), Speed.SUPER: (1024,)}


class DeclarationError(TypeError):
    """A device's class is wrong: says which, what is wrong, and what is allowed."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A control transfer's eight bytes. ``type`` is bmRequestType; little-endian."""

    type: int
    request: int
    value: int
    index: int
    length: int

    @classmethod
    def parse(cls, data: bytes) -> Setup:
        low, high = data[4] | data[5] << 8, data[6] | data[7] << 8
        return cls(data[0], data[1], data[2] | data[3] << 8, low, high)

    @property
    def direction(self) -> Direction:
        return Direction.IN if self.type & 0x80 else Direction.OUT


class Endpoint:
    """An endpoint of an interface. On a device it is the pipe itself, on its class this.

    ``interval_ms`` is the time between two polls of an interrupt endpoint, or two packets of an
    isochronous one; ``max_packet`` None: the largest that is usual.
    """

    def __init__(
        self,
        number: int,
        direction: Direction,
        kind: TransferType,
        *,
        max_packet: int | None = None,
        interval_ms: float = 1.0,
    ) -> None:
        self.number = number
        self.direction = direction
        self.type = kind
        self.interval_ms = interval_ms
        self._max_packet = max_packet
        self.name = ""
        # Names of the device's methods.
        self.handlers: dict[str, str] = {}

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def _handles(self, event: str, function: Handler) -> Handler:
        self.handlers[event] = function.__name__
        return function

    def urb(self, function: Handler) -> Handler:
        """A handler ``(self, urb)`` that gets every transfer as it is, and has to complete it."""
        return self._handles("urb", function)

    def max_packet(self, speed: Speed) -> int:
        """Bytes a packet at most, at this speed."""
        if self._max_packet is not None:
            return self._max_packet
        largest = _LARGEST.get(speed, {}).get(self.type, 8)
        return largest if self.type is TransferType.BULK else min(largest, 64)

    def period(self, speed: Speed) -> float:
        """Seconds between two packets, as bInterval says it in the end."""
        exponent = self._interval(speed)
        if speed in (Speed.LOW, Speed.FULL):
            return (exponent if self.type is _INTERRUPT else 2.0 ** (exponent - 1)) / 1000
        return 2.0 ** (exponent - 1) * 0.000125

    def _interval(self, speed: Speed) -> int:
        if self.type is TransferType.BULK:
            return 0
        if speed in (Speed.LOW, Speed.FULL) and self.type is _INTERRUPT:
            return min(max(round(self.interval_ms), 1), 255)
        frame = 1.0 if speed in (Speed.LOW, Speed.FULL) else 0.125
        return min(max(int(math.log2(max(self.interval_ms / frame, 1))) + 1, 1), 16)

    @property
    def address(self) -> int:
        """The number, with the direction in bit 7."""
        return self.number | self.direction << 7

    def descriptor(self, speed: Speed) -> EndpointDescriptor:
        packet = self.max_packet(speed)
        extra = b""
        if speed >= Speed.SUPER:
            every = 0 if self.type is TransferType.BULK else packet
            extra = companion(bytes_per_interval=every)
        # Isochronous: asynchronous, data (USB 2.0, table 9-13).
        attributes = self.type | (0x4 if self.type is _ISO else 0)
        return EndpointDescriptor(self.address, attributes, packet, self._interval(speed), extra)

    def wrong(self, speed: Speed) -> str:
        """What is wrong with it; "" if nothing is."""
        if not 1 <= self.number <= 15:
            return f"the endpoint's number is {self.number}; 1 to 15 are allowed"
        kind = self.type.name.lower()
        largest = _LARGEST.get(speed, {}).get(self.type)
        if largest is None:
            return f"a device of {speed.name} speed has no {kind} endpoints"
        packet = self.max_packet(speed)
        sizes = _BULK_SIZES.get(speed, ()) if self.type is TransferType.BULK else ()
        if sizes and packet not in sizes:
            allowed = " or ".join(map(str, sizes))
            return f"max_packet is {packet}; a bulk endpoint at {speed.name} speed has {allowed}"
        if not 1 <= packet <= largest:
            return f"max_packet is {packet}; 1 to {largest} for {kind} at {speed.name} speed"
        if self.interval_ms <= 0:
            return f"interval_ms is {self.interval_ms}; it has to be over 0"
        return ""


class In(Endpoint):
    """Towards the importer."""

    def requested(self, function: Handler) -> Handler:
        """A handler ``(self, length) -> bytes | None`` that is asked when the importer polls and
        nothing was sent. None: nothing to say now; the importer waits for :meth:`InPipe.send`."""
        return self._handles("requested", function)

    @overload
    def __get__(self, instance: None, owner: type) -> In: ...
    @overload
    def __get__(self, instance: object, owner: type) -> InPipe: ...
    def __get__(self, instance: Any, owner: type) -> In | Pipe:
        return self if instance is None else instance.pipes[self]


class Out(Endpoint):
    """From the importer."""

    def received(self, function: Handler) -> Handler:
        """A handler ``(self, data: bytes)`` of each transfer, or each isochronous packet."""
        return self._handles("received", function)

    @overload
    def __get__(self, instance: None, owner: type) -> Out: ...
    @overload
    def __get__(self, instance: object, owner: type) -> OutPipe: ...
    def __get__(self, instance: Any, owner: type) -> Out | Pipe:
        return self if instance is None else instance.pipes[self]


class Interface:
    """An interface, or an alternate setting of one.

    ``extra`` are class-specific descriptors behind the interface's own.
    """

    def __init__(
        self,
        interface_class: int = 0xFF,
        subclass: int = 0,
        protocol: int = 0,
        *,
        extra: bytes = b"",
        of: Interface | None = None,
    ) -> None:
        self.interface_class = interface_class
        self.subclass = subclass
        self.protocol = protocol
        self.extra = extra
        self.main = of
        self.endpoints: list[Endpoint] = []
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def alternate(self, *, extra: bytes = b"") -> Interface:
        """A further setting of it, with endpoints of its own."""
        own = (self.interface_class, self.subclass, self.protocol)
        return Interface(*own, extra=extra, of=self.main or self)

    def _in(self, number: int, kind: TransferType, **options: Any) -> In:
        one = In(number, Direction.IN, kind, **options)
        self.endpoints.append(one)
        return one

    def _out(self, number: int, kind: TransferType, **options: Any) -> Out:
        one = Out(number, Direction.OUT, kind, **options)
        self.endpoints.append(one)
        return one

    def bulk_in(self, number: int, *, max_packet: int | None = None) -> In:
        return self._in(number, TransferType.BULK, max_packet=max_packet)

    def bulk_out(self, number: int, *, max_packet: int | None = None) -> Out:
        return self._out(number, TransferType.BULK, max_packet=max_packet)

    def interrupt_in(
        self, number: int, *, max_packet: int | None = None, interval_ms: float = 1.0
    ) -> In:
        return self._in(number, _INTERRUPT, max_packet=max_packet, interval_ms=interval_ms)

    def interrupt_out(
        self, number: int, *, max_packet: int | None = None, interval_ms: float = 1.0
    ) -> Out:
        return self._out(number, _INTERRUPT, max_packet=max_packet, interval_ms=interval_ms)

    def iso_in(self, number: int, *, max_packet: int | None = None, interval_ms: float = 1.0) -> In:
        return self._in(number, _ISO, max_packet=max_packet, interval_ms=interval_ms)

    def iso_out(
        self, number: int, *, max_packet: int | None = None, interval_ms: float = 1.0
    ) -> Out:
        return self._out(number, _ISO, max_packet=max_packet, interval_ms=interval_ms)


def request(request_type: int, number: int) -> Callable[[Handler], Handler]:
    """A handler of a control request, by its bmRequestType and bRequest.

    IN: ``(self, setup) -> bytes``, of which at most wLength are sent. OUT: ``(self, setup, data)``.
    """

    def mark(function: Handler) -> Handler:
        known = getattr(function, "hil_requests", ())
        function.hil_requests = (*known, (request_type, number))  # type: ignore[attr-defined]
        return function

    return mark
