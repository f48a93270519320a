"""USB descriptors: packing and parsing side by side. USB 2.0, chapter 9; little-endian."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, unique

from pytest_hil.errors import ProtocolError
from pytest_hil.usbip.messages import Bytes, Direction
from pytest_hil.usbip.urb import TransferType

_DEVICE = struct.Struct("<BBHBBBBHHHBBBB")
_CONFIGURATION = struct.Struct("<BBHBBBBB")
_INTERFACE = struct.Struct("<BBBBBBBBB")
_ENDPOINT = struct.Struct("<BBBBHB")
_COMPANION = struct.Struct("<BBBBH")
_ASSOCIATION = struct.Struct("<BBBBBBBB")
_QUALIFIER = struct.Struct("<BBHBBBBBB")

# wLangID of English (United States), the only language that devices here speak.
ENGLISH = 0x0409
MAX_STRING = 126


@unique
class Kind(IntEnum):
    """bDescriptorType (USB 2.0, table 9-5; USB 3.2, table 9-6)."""

    DEVICE = 1
    CONFIGURATION = 2
    STRING = 3
    INTERFACE = 4
    ENDPOINT = 5
    QUALIFIER = 6
    OTHER_SPEED = 7
    ASSOCIATION = 11
    BOS = 15
    CAPABILITY = 16
    HID = 0x21
    REPORT = 0x22
    CLASS_INTERFACE = 0x24
    COMPANION = 48


class DescriptorError(ProtocolError):
    """A descriptor that does not hold together. ``offset`` is where, in bytes."""

    def __init__(self, message: str, *, offset: int, data: Bytes = b"") -> None:
        shown = f": {bytes(data[:24]).hex(' ')}" if data else ""
        super().__init__(f"descriptor at byte {offset}: {message}{shown}")
        self.offset = offset


@dataclass(frozen=True, slots=True)
class DeviceDescriptor:
    """18 bytes. ``usb`` and ``release`` are binary-coded decimals: 0x0200 for 2.00."""

    vendor_id: int
    product_id: int
    usb: int = 0x0200
    device_class: int = 0
    subclass: int = 0
    protocol: int = 0
    max_packet: int = 64
    release: int = 0x0100
    manufacturer: int = 0
    product: int = 0
    serial: int = 0
    configurations: int = 1

    def pack(self) -> bytes:
        return _DEVICE.pack(
            _DEVICE.size,
            Kind.DEVICE,
            self.usb,
            self.device_class,
            self.subclass,
            self.protocol,
            self.max_packet,
            self.vendor_id,
            self.product_id,
            self.release,
            self.manufacturer,
            self.product,
            self.serial,
            self.configurations,
        )

    @classmethod
    def parse(cls, data: Bytes) -> DeviceDescriptor:
        """Raises DescriptorError unless it begins with a whole device descriptor."""
        if len(data) < _DEVICE.size or data[0] < _DEVICE.size or data[1] != Kind.DEVICE:
            raise DescriptorError("no device descriptor of 18 bytes", offset=0, data=data)
        _size, _kind, *fields = _DEVICE.unpack_from(data)
        usb, klass, sub, proto, packet, vendor, product, release, *rest = fields
        manufacturer, name, serial, configurations = rest
        return cls(
            vendor_id=vendor,
            product_id=product,
            usb=usb,
            device_class=klass,
            subclass=sub,
            protocol=proto,
            max_packet=packet,
            release=release,
            manufacturer=manufacturer,
            product=name,
            serial=serial,
            configurations=configurations,
        )

    def pack_qualifier(self) -> bytes:
        """What it would be at the other speed: the same (USB 2.0, 9.6.2)."""
        return _QUALIFIER.pack(
            _QUALIFIER.size,
            Kind.QUALIFIER,
            self.usb,
            self.device_class,
            self.subclass,
            self.protocol,
            self.max_packet,
            self.configurations,
            0,
        )


@dataclass(frozen=True, slots=True)
class EndpointDescriptor:
    """7 bytes, and what stands behind it: a companion at SuperSpeed, class-specific ones.

    ``max_packet`` is wMaxPacketSize whole, with the transactions a microframe in bits 11 and 12.
    ``tail`` makes it longer than 7 bytes: audio's has two more (USB Audio 1.0, 4.6.1.1).
    """

    address: int
    attributes: int
    max_packet: int
    interval: int = 0
    extra: bytes = b""
    tail: bytes = b""

    @property
    def number(self) -> int:
        return self.address & 0x0F

    @property
    def direction(self) -> Direction:
        return Direction.IN if self.address & 0x80 else Direction.OUT

    @property
    def type(self) -> TransferType:
        return TransferType(self.attributes & 3)

    @property
    def payload(self) -> int:
        """Bytes a packet at most, over all transactions of a microframe."""
        return (self.max_packet & 0x7FF) * (1 + (self.max_packet >> 11 & 3))

    def pack(self) -> bytes:
        own = (self.address, self.attributes, self.max_packet, self.interval)
        size = _ENDPOINT.size + len(self.tail)
        return _ENDPOINT.pack(size, Kind.ENDPOINT, *own) + self.tail + self.extra


def companion(*, max_burst: int = 0, attributes: int = 0, bytes_per_interval: int = 0) -> bytes:
    """A SuperSpeed endpoint's companion (USB 3.2, 9.6.7)."""
    return _COMPANION.pack(
        _COMPANION.size, Kind.COMPANION, max_burst, attributes, bytes_per_interval
    )


@dataclass(frozen=True, slots=True)
class InterfaceDescriptor:
    """One alternate setting of an interface: 9 bytes, what is class-specific, its endpoints."""

    number: int
    alternate: int
    interface_class: int
    subclass: int = 0
    protocol: int = 0
    string: int = 0
    extra: bytes = b""
    endpoints: tuple[EndpointDescriptor, ...] = ()

    def pack(self) -> bytes:
        head = _INTERFACE.pack(
            _INTERFACE.size,
            Kind.INTERFACE,
            self.number,
            self.alternate,
            len(self.endpoints),
            self.interface_class,
            self.subclass,
            self.protocol,
            self.string,
        )
        return head + self.extra + b"".join(one.pack() for one in self.endpoints)


@dataclass(frozen=True, slots=True)
class Association:
    """Interfaces that are one function (USB 2.0 ECN: Interface Association Descriptor)."""

    first: int
    count: int
    function_class: int
    subclass: int = 0
    protocol: int = 0
    string: int = 0

    def pack(self) -> bytes:
        return _ASSOCIATION.pack(
            _ASSOCIATION.size,
            Kind.ASSOCIATION,
            self.first,
            self.count,
            self.function_class,
            self.subclass,
            self.protocol,
            self.string,
        )


@dataclass(frozen=True, slots=True)
class Configuration:
    """A configuration with all that belongs to it. ``max_power`` in units of 2 mA (8 mA if Super).

    ``interfaces`` has every alternate setting, in the order of the bytes; an association stands
    before its first interface.
    """

    interfaces: tuple[InterfaceDescriptor, ...]
    value: int = 1
    attributes: int = 0x80
    max_power: int = 50
    string: int = 0
    associations: tuple[Association, ...] = ()
    extra: bytes = b""

    @property
    def numbers(self) -> list[int]:
        """The interfaces' numbers, each once."""
        return list(dict.fromkeys(one.number for one in self.interfaces))

    def alternate(self, number: int, alternate: int) -> InterfaceDescriptor | None:
        """One alternate setting of one interface."""
        wanted = (number, alternate)
        return next((one for one in self.interfaces if (one.number, one.alternate) == wanted), None)

    def pack(self) -> bytes:
        before = {one.first: one.pack() for one in self.associations}
        body = self.extra + b"".join(
            (before.get(one.number, b"") if one.alternate == 0 else b"") + one.pack()
            for one in self.interfaces
        )
        head = _CONFIGURATION.pack(
            _CONFIGURATION.size,
            Kind.CONFIGURATION,
            _CONFIGURATION.size + len(body),
            len(self.numbers),
            self.value,
            self.string,
            self.attributes,
            self.max_power,
        )
        return head + body


@dataclass(slots=True)
class _Reading:
    """What a configuration's bytes have come to so far."""

    extra: bytearray = field(default_factory=bytearray)
    associations: list[Association] = field(default_factory=list)
    interfaces: list[tuple[tuple[int, ...], bytearray]] = field(default_factory=list)
    endpoints: list[list[tuple[tuple[int, ...], bytes, bytearray]]] = field(default_factory=list)


def walk(data: Bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, descriptor) of each one. Raises DescriptorError for one that does not fit."""
    offset = 0
    while offset < len(data):
        size = data[offset]
        if size < 2:
            raise DescriptorError(f"its length is {size}", offset=offset, data=data[offset:])
        if offset + size > len(data):
            message = f"its length is {size}, and {len(data) - offset} bytes are left"
            raise DescriptorError(message, offset=offset, data=data[offset:])
        yield offset, bytes(data[offset : offset + size])
        offset += size


def parse_configuration(data: Bytes) -> Configuration:
    """All of a configuration. Raises DescriptorError for whatever does not hold together."""
    if len(data) < _CONFIGURATION.size or data[1] != Kind.CONFIGURATION:
        raise DescriptorError("no configuration", offset=0, data=data)
    size, _kind, total, count, value, string, attributes, power = _CONFIGURATION.unpack_from(data)
    if size < _CONFIGURATION.size or total != len(data):
        raise DescriptorError(
            f"wTotalLength is {total}, its own length {size}, and {len(data)} bytes are there",
            offset=0,
            data=data,
        )
    reading = _Reading()
    for offset, one in walk(data):
        if offset:
            _read(reading, offset, one)
    interfaces = tuple(
        InterfaceDescriptor(
            *(fields[0], fields[1], fields[3], fields[4], fields[5], fields[6]),
            extra=bytes(extra),
            endpoints=tuple(
                EndpointDescriptor(four[0], four[1], four[2], four[3], bytes(more), tail)
                for four, tail, more in endpoints
            ),
        )
        for (fields, extra), endpoints in zip(reading.interfaces, reading.endpoints, strict=True)
    )
    for (fields, _extra), endpoints in zip(reading.interfaces, reading.endpoints, strict=True):
        if fields[2] != len(endpoints):
            raise DescriptorError(
                f"interface {fields[0]} alternate {fields[1]} says {fields[2]} endpoints and has "
                f"{len(endpoints)}",
                offset=0,
            )
    found = Configuration(
        interfaces,
        value,
        attributes,
        power,
        string,
        tuple(reading.associations),
        bytes(reading.extra),
    )
    if len(found.numbers) != count:
        raise DescriptorError(
            f"bNumInterfaces is {count}, and {len(found.numbers)} are there", offset=4, data=data
        )
    return found


def _read(reading: _Reading, offset: int, one: bytes) -> None:
    kind = one[1]
    if kind == Kind.INTERFACE:
        if len(one) < _INTERFACE.size:
            raise DescriptorError("an interface that is too short", offset=offset, data=one)
        reading.interfaces.append((tuple(one[2:9]), bytearray()))
        reading.endpoints.append([])
    elif kind == Kind.ENDPOINT:
        if len(one) < _ENDPOINT.size or not reading.interfaces:
            raise DescriptorError("an endpoint that has no place", offset=offset, data=one)
        fields = _ENDPOINT.unpack_from(one)[2:]
        reading.endpoints[-1].append((fields, bytes(one[_ENDPOINT.size :]), bytearray()))
    elif kind == Kind.ASSOCIATION and len(one) >= _ASSOCIATION.size:
        reading.associations.append(Association(*one[2:8]))
    elif not reading.interfaces:
        reading.extra += one
    elif reading.endpoints[-1]:
        reading.endpoints[-1][-1][2].extend(one)
    else:
        reading.interfaces[-1][1].extend(one)


def pack_string(text: str) -> bytes:
    """A string descriptor. Raises ValueError for one that is too long."""
    data = text.encode("utf-16-le")
    if len(data) > 2 * MAX_STRING:
        raise ValueError(f"a string of {len(data) // 2} UTF-16 units: at most {MAX_STRING}")
    return bytes((2 + len(data), Kind.STRING)) + data


def parse_string(data: Bytes) -> str:
    """A string descriptor's text. Raises DescriptorError."""
    if len(data) < 2 or data[1] != Kind.STRING or data[0] < 2 or data[0] > len(data):
        raise DescriptorError("no string", offset=0, data=data)
    return bytes(data[2 : data[0]]).decode("utf-16-le", errors="replace")


def pack_languages() -> bytes:
    """String descriptor 0: the languages."""
    return struct.pack("<BBH", 4, Kind.STRING, ENGLISH)


def pack_bos(*, super_speed: bool) -> bytes:
    """The binary object store: USB 2.0 extension (LPM), and SuperSpeed's capability."""
    capabilities = [struct.pack("<BBBI", 7, Kind.CAPABILITY, 2, 0x2)]
    if super_speed:
        # Full, high and super; all functions from full speed on; exit latencies in µs.
        fields = (10, Kind.CAPABILITY, 3, 0, 0x000E, 1, 10, 2047)
        capabilities.append(struct.pack("<BBBBHBBH", *fields))
    body = b"".join(capabilities)
    return struct.pack("<BBHB", 5, Kind.BOS, 5 + len(body), len(capabilities)) + body
