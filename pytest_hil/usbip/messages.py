"""USB/IP's messages: what is on the wire, each with its packing and parsing side by side.

No socket, no thread, no clock. Numbers are big-endian but for the setup packet, which passes as
it is. Sources: Linux, Documentation/usb/usbip_protocol.rst; where that and the kernel differ, the
kernel (drivers/usb/usbip/usbip_common.h, tools/usb/usbip/src/usbip_network.h).
"""

from __future__ import annotations

import errno
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum, unique

from pytest_hil.errors import ProtocolError

Bytes = bytes | bytearray | memoryview

VERSION = 0x0111
PORT = 3240

_OP = struct.Struct(">HHI")
_DEVICE = struct.Struct(">256s32sIIIHHHBBBBBB")
_INTERFACE = struct.Struct(">BBBx")
_COUNT = struct.Struct(">I")
_BUSID = struct.Struct(">32s")
_SUBMIT = struct.Struct(">IIIIIIiiii8s")
_RET_SUBMIT = struct.Struct(">IIIIIiiiii8x")
_UNLINK = struct.Struct(">IIIIII24x")
_RET_UNLINK = struct.Struct(">IIIIIi24x")
_ISO = struct.Struct(">IIIi")

OP_SIZE = _OP.size
DEVICE_SIZE = _DEVICE.size
INTERFACE_SIZE = _INTERFACE.size
BUSID_SIZE = _BUSID.size
URB_SIZE = _SUBMIT.size
ISO_SIZE = _ISO.size

assert (OP_SIZE, DEVICE_SIZE, INTERFACE_SIZE, URB_SIZE, ISO_SIZE) == (8, 312, 4, 48, 16)
assert _RET_SUBMIT.size == _UNLINK.size == _RET_UNLINK.size == URB_SIZE

# Linux: usbip_common.h has no bound for these two; a URB of usbfs has 128 packets, one of a class
# driver some hundred. Both bound what a peer's claim can cost.
MAX_ISO_PACKETS = 1024
MAX_TRANSFER = 16 * 2**20
# Devices in one OP_REP_DEVLIST: two bytes of bus and device number are more than any host has.
MAX_DEVICES = 4096


@unique
class Fault(StrEnum):
    """Every way in which a message can be malformed."""

    VERSION = "version"  # not 1.1.1
    CODE = "code"  # not the code of a request, or of the reply that is waited for
    COMMAND = "command"  # not a command that this side takes
    DIRECTION = "direction"  # neither 0 nor 1
    ENDPOINT = "endpoint"  # over 15
    LENGTH = "length"  # negative, or over what is allowed
    ACTUAL = "actual"  # over what was asked for, or not the sum of its packets
    PACKETS = "packets"  # negative, or too many
    PACKET = "packet"  # outside of its buffer
    BUSID = "busid"  # no text that ends within its 32 bytes
    TEXT = "text"  # no text that ends within its field
    DEVICES = "devices"  # more than any host has
    SEQNUM = "seqnum"  # of a URB that is not in flight, or of one that is already
    DEVID = "devid"  # not that of the imported device
    STATUS = "status"  # no status that this message can have
    ORDER = "order"  # not now: data before the first request, or after the last
    CUT = "cut"  # the connection ended in its middle


class Malformed(ProtocolError):
    """The other side sent something that USB/IP does not allow.

    ``fault`` says which kind, ``found`` is what was there, ``data`` the bytes around it.
    """

    def __init__(self, fault: Fault, found: object, wanted: str, *, data: Bytes = b"") -> None:
        shown = f"{found:#x}" if isinstance(found, int) and found > 9 else f"{found}"
        seen = f"; the bytes: {bytes(data[:48]).hex(' ', 4)}" if data else ""
        super().__init__(f"USB/IP: {fault.value} {shown}, wanted {wanted}{seen}")
        self.fault = fault
        self.found = found
        self.wanted = wanted
        self.data = bytes(data[:48])


@unique
class Code(IntEnum):
    """The operations before a device is imported."""

    REQ_DEVLIST = 0x8005
    REP_DEVLIST = 0x0005
    REQ_IMPORT = 0x8003
    REP_IMPORT = 0x0003


@unique
class OpStatus(IntEnum):
    """What an OP_REP says (Linux: ``ST_…``)."""

    OK = 0
    NA = 1  # the request failed
    DEV_BUSY = 2  # imported already
    DEV_ERR = 3  # in an error state
    NODEV = 4  # there is no such device
    ERROR = 5  # unexpected response


@unique
class Speed(IntEnum):
    """Linux's ``enum usb_device_speed``, which is what is on the wire."""

    UNKNOWN = 0
    LOW = 1
    FULL = 2
    HIGH = 3
    WIRELESS = 4
    SUPER = 5
    SUPER_PLUS = 6


@unique
class Command(IntEnum):
    """The commands after a device is imported."""

    SUBMIT = 1
    UNLINK = 2
    RET_SUBMIT = 3
    RET_UNLINK = 4


@unique
class Direction(IntEnum):
    OUT = 0
    IN = 1


# An enumeration's members are slow to look up (in Python 3.11), and these are for every transfer.
_OUT, _IN = Direction

# URB flags that mean something on the wire (Linux: URB_…, include/linux/usb.h).
SHORT_NOT_OK = 0x0001
ISO_ASAP = 0x0002
ZERO_PACKET = 0x0040

# URB statuses are Linux's negative errno.
OK = 0
STALL = -errno.EPIPE
UNLINKED = -errno.ECONNRESET
SHUTDOWN = -errno.ESHUTDOWN
NO_DEVICE = -errno.ENODEV
NO_ENDPOINT = -errno.ENOENT
OVERFLOW = -errno.EOVERFLOW
SHORT = -errno.EREMOTEIO
PROTOCOL = -errno.EPROTO
TOO_LARGE = -errno.ENOMEM


def _text(field: bytes, fault: Fault, name: str) -> str:
    text, end, _rest = field.partition(b"\0")
    if not end:
        raise Malformed(fault, field, f"{name} that ends with a zero byte")
    try:
        return text.decode("ascii")
    except UnicodeDecodeError:
        raise Malformed(fault, text, f"{name} in ASCII") from None


def _field(text: str, size: int, name: str) -> bytes:
    data = text.encode("ascii")
    if len(data) >= size or b"\0" in data:
        raise ValueError(f"{name} {text!r} has no place in {size - 1} bytes")
    return data


# --- operations ---


@dataclass(frozen=True, slots=True)
class OpHeader:
    """The eight bytes before every operation."""

    code: int
    status: int = 0
    version: int = VERSION

    def pack(self) -> bytes:
        return _OP.pack(self.version, self.code, self.status)

    @classmethod
    def parse(cls, data: Bytes) -> OpHeader:
        """From 8 bytes, whatever they say."""
        version, code, status = _OP.unpack_from(data)
        return cls(code, status, version)

    def expect(self, *codes: Code) -> None:
        """Raises Malformed unless it is of our version and has one of these codes."""
        if self.version != VERSION:
            raise Malformed(Fault.VERSION, self.version, f"{VERSION:#06x}", data=self.pack())
        if self.code not in codes:
            wanted = " or ".join(f"{code:#06x} ({code.name})" for code in codes)
            raise Malformed(Fault.CODE, self.code, wanted, data=self.pack())


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface as OP_REP_DEVLIST tells it: class, subclass, protocol."""

    interface_class: int
    subclass: int
    protocol: int

    def pack(self) -> bytes:
        return _INTERFACE.pack(self.interface_class, self.subclass, self.protocol)

    @classmethod
    def parse(cls, data: Bytes, offset: int = 0) -> Interface:
        return cls(*_INTERFACE.unpack_from(data, offset))


@dataclass(frozen=True, slots=True)
class Device:
    """A device as an exporter tells it; 312 bytes, and 4 for each interface in a list.

    ``path`` is the exporter's own name of it (sysfs on Linux), ``busid`` what is imported
    ("1-1.2"). ``bcd_device`` is 0x0123 for release 1.23. ``interfaces`` is empty in what an
    import replies, where only their number is told.
    """

    busid: str
    busnum: int
    devnum: int
    speed: Speed | int
    vendor_id: int
    product_id: int
    bcd_device: int = 0x0100
    device_class: int = 0
    subclass: int = 0
    protocol: int = 0
    configuration_value: int = 1
    configurations: int = 1
    interface_count: int = 1
    interfaces: tuple[Interface, ...] = ()
    path: str = ""

    @property
    def devid(self) -> int:
        """What URBs call it."""
        return self.busnum << 16 | self.devnum

    def pack(self) -> bytes:
        """The 312 bytes, without interfaces."""
        return _DEVICE.pack(
            _field(self.path, 256, "the path"),
            _field(self.busid, BUSID_SIZE, "the bus id"),
            self.busnum,
            self.devnum,
            self.speed,
            self.vendor_id,
            self.product_id,
            self.bcd_device,
            self.device_class,
            self.subclass,
            self.protocol,
            self.configuration_value,
            self.configurations,
            self.interface_count,
        )

    def pack_interfaces(self) -> bytes:
        return b"".join(interface.pack() for interface in self.interfaces)

    @classmethod
    def parse(cls, data: Bytes, interfaces: Bytes = b"") -> Device:
        """From 312 bytes, and from the interfaces' bytes in a list."""
        path, busid, busnum, devnum, speed, *rest = _DEVICE.unpack_from(data)
        vendor, product, bcd, klass, subclass, protocol, value, configurations, count = rest
        if busnum > 0xFFFF or devnum > 0xFFFF:
            number = f"{busnum}-{devnum}"
            raise Malformed(Fault.DEVICES, number, "bus and device numbers of 16 bits")
        return cls(
            busid=_text(busid, Fault.BUSID, "a bus id"),
            busnum=busnum,
            devnum=devnum,
            speed=Speed(speed) if speed in Speed._value2member_map_ else speed,
            vendor_id=vendor,
            product_id=product,
            bcd_device=bcd,
            device_class=klass,
            subclass=subclass,
            protocol=protocol,
            configuration_value=value,
            configurations=configurations,
            interface_count=count,
            interfaces=tuple(
                Interface.parse(interfaces, at) for at in range(0, len(interfaces), INTERFACE_SIZE)
            ),
            path=_text(path, Fault.TEXT, "a path"),
        )


@dataclass(frozen=True, slots=True)
class ReqDevlist:
    """Which devices do you export?"""

    def pack(self) -> bytes:
        return OpHeader(Code.REQ_DEVLIST).pack()


@dataclass(frozen=True, slots=True)
class RepDevlist:
    """These."""

    devices: tuple[Device, ...]
    status: OpStatus | int = OpStatus.OK

    def pack(self) -> bytes:
        each = [part for one in self.devices for part in (one.pack(), one.pack_interfaces())]
        head = OpHeader(Code.REP_DEVLIST, self.status).pack() + _COUNT.pack(len(self.devices))
        return b"".join([head, *each])

    @staticmethod
    def parse_count(data: Bytes) -> int:
        """How many devices follow, from the 4 bytes after the header."""
        (count,) = _COUNT.unpack_from(data)
        if count > MAX_DEVICES:
            raise Malformed(Fault.DEVICES, count, f"at most {MAX_DEVICES} devices", data=data)
        return int(count)


@dataclass(frozen=True, slots=True)
class ReqImport:
    """I want this one."""

    busid: str

    def pack(self) -> bytes:
        name = _BUSID.pack(_field(self.busid, BUSID_SIZE, "the bus id"))
        return OpHeader(Code.REQ_IMPORT).pack() + name

    @classmethod
    def parse(cls, data: Bytes) -> ReqImport:
        """From the 32 bytes after the header."""
        return cls(_text(bytes(data[:BUSID_SIZE]), Fault.BUSID, "a bus id"))


@dataclass(frozen=True, slots=True)
class RepImport:
    """It is yours, or why not: ``device`` is there exactly if ``status`` is OK."""

    device: Device | None
    status: OpStatus | int = OpStatus.OK

    def pack(self) -> bytes:
        head = OpHeader(Code.REP_IMPORT, self.status).pack()
        return head + self.device.pack() if self.device is not None else head


Operation = ReqDevlist | RepDevlist | ReqImport | RepImport

# --- URBs ---


@dataclass(frozen=True, slots=True)
class IsoPacket:
    """One packet of an isochronous URB: 16 bytes after the data.

    ``offset`` and ``length`` are its place in the buffer; ``actual`` bytes of it count.
    """

    offset: int
    length: int
    actual: int = 0
    status: int = 0

    def pack(self) -> bytes:
        return _ISO.pack(self.offset, self.length, self.actual, self.status)

    @staticmethod
    def parse_all(data: Bytes, size: int) -> tuple[IsoPacket, ...]:
        """From 16 bytes each; ``size`` is that of their buffer.

        Raises Malformed when one lies outside of it.
        """
        packets = tuple(IsoPacket(*fields) for fields in _ISO.iter_unpack(data))
        for packet in packets:
            if packet.offset + packet.length > size or packet.actual > packet.length:
                raise Malformed(Fault.PACKET, packet, f"a place within {size} bytes")
        return packets


def pack_packets(packets: Iterable[IsoPacket]) -> bytes:
    return b"".join(packet.pack() for packet in packets)


def _check_place(direction: int, endpoint: int, data: Bytes) -> None:
    if direction > 1:
        raise Malformed(Fault.DIRECTION, direction, "0 (OUT) or 1 (IN)", data=data)
    if endpoint > 15:
        raise Malformed(Fault.ENDPOINT, endpoint, "at most 15", data=data)


# Not frozen, as one is made for every transfer: a frozen one takes three times as long to make.
@dataclass(slots=True)
class Submit:
    """USBIP_CMD_SUBMIT: do this transfer.

    ``length`` is that of the transfer buffer, either way; ``data`` is there for OUT, of just that
    length. ``packets`` is the number on the wire: only that of an isochronous URB means something
    (Linux sends 0 otherwise, the document says 0xffffffff, others anything), and ``iso`` has them.
    """

    seqnum: int
    devid: int
    direction: Direction
    endpoint: int
    length: int
    setup: bytes = bytes(8)
    data: Bytes = b""
    flags: int = 0
    start_frame: int = 0
    packets: int = 0
    interval: int = 0
    iso: tuple[IsoPacket, ...] = ()

    def pack(self) -> bytes:
        head = _SUBMIT.pack(
            Command.SUBMIT,
            self.seqnum,
            self.devid,
            self.direction,
            self.endpoint,
            self.flags,
            self.length,
            self.start_frame,
            len(self.iso) or self.packets,
            self.interval,
            self.setup,
        )
        return b"".join((head, self.data, pack_packets(self.iso)))

    @classmethod
    def parse(cls, data: Bytes, *, limit: int = MAX_TRANSFER) -> Submit:
        """From the 48 bytes of its header: ``data`` and ``iso`` follow.

        Raises Malformed for a length that is negative, or an OUT one over ``limit``: nobody
        could take its data. (An IN one claims nothing but an answer.)
        """
        (
            _command,
            seqnum,
            devid,
            direction,
            endpoint,
            flags,
            length,
            start_frame,
            packets,
            interval,
            setup,
        ) = _SUBMIT.unpack_from(data)
        if direction > 1 or endpoint > 15:
            _check_place(direction, endpoint, data)
        if length < 0 or (length > limit and not direction):
            raise Malformed(Fault.LENGTH, length, f"0 to {limit}", data=data)
        way = _IN if direction else _OUT
        return cls(
            seqnum,
            devid,
            way,
            endpoint,
            length,
            setup,
            b"",
            flags,
            start_frame,
            packets,
            interval,
        )


@dataclass(frozen=True, slots=True)
class Unlink:
    """USBIP_CMD_UNLINK: give up the URB ``unlinked``."""

    seqnum: int
    devid: int
    unlinked: int
    direction: Direction = Direction.OUT
    endpoint: int = 0

    def pack(self) -> bytes:
        place = (self.devid, self.direction, self.endpoint)
        return _UNLINK.pack(Command.UNLINK, self.seqnum, *place, self.unlinked)

    @classmethod
    def parse(cls, data: Bytes) -> Unlink:
        _command, seqnum, devid, direction, endpoint, unlinked = _UNLINK.unpack_from(data)
        # Linux sends the direction and the endpoint of nothing here.
        return cls(seqnum, devid, unlinked, Direction(direction & 1), endpoint & 15)


def pack_ret_submit(
    seqnum: int, status: int, actual: int, start_frame: int, packets: int, errors: int
) -> bytes:
    """The 48 bytes of a :class:`RetSubmit`'s header, for those who send its data apart."""
    return _RET_SUBMIT.pack(3, seqnum, 0, 0, 0, status, actual, start_frame, packets, errors)


@dataclass(slots=True)
class RetSubmit:
    """USBIP_RET_SUBMIT: how a transfer ended.

    ``status`` is 0 or a negative errno of Linux. ``actual`` counts bytes in both directions;
    ``data`` is there for IN, of just that length, and with a status that is an error too.
    """

    seqnum: int
    status: int = 0
    actual: int = 0
    data: Bytes = b""
    start_frame: int = 0
    packets: int = 0
    errors: int = 0
    iso: tuple[IsoPacket, ...] = ()

    def pack(self) -> bytes:
        packets = len(self.iso) or self.packets
        head = pack_ret_submit(
            self.seqnum, self.status, self.actual, self.start_frame, packets, self.errors
        )
        return b"".join((head, self.data, pack_packets(self.iso)))

    @classmethod
    def parse(cls, data: Bytes) -> RetSubmit:
        """From the 48 bytes of its header: ``data`` and ``iso`` follow, as the URB was."""
        fields = _RET_SUBMIT.unpack_from(data)
        _command, seqnum, _devid, _direction, _endpoint, *rest = fields
        status, actual, start_frame, packets, errors = rest
        if actual < 0:
            raise Malformed(Fault.ACTUAL, actual, "0 or more", data=data)
        if status > 0:
            raise Malformed(Fault.STATUS, status, "0 or a negative errno", data=data)
        return cls(seqnum, status, actual, b"", start_frame, packets, errors)


@dataclass(frozen=True, slots=True)
class RetUnlink:
    """USBIP_RET_UNLINK: −ECONNRESET if the URB was given up, 0 if it had ended before."""

    seqnum: int
    status: int = 0

    def pack(self) -> bytes:
        return _RET_UNLINK.pack(Command.RET_UNLINK, self.seqnum, 0, 0, 0, self.status)

    @classmethod
    def parse(cls, data: Bytes) -> RetUnlink:
        _command, seqnum, _devid, _direction, _endpoint, status = _RET_UNLINK.unpack_from(data)
        return cls(seqnum, status)


Message = Submit | Unlink | RetSubmit | RetUnlink


def command_of(data: Bytes) -> int:
    """The command of a URB header."""
    (command,) = _COUNT.unpack_from(data)
    return int(command)


_ADDRESS = re.compile(r"(?:\[([^\]]+)\]|([^:\[\]]+))(?::(\d{1,5}))?")


def parse_address(text: str) -> tuple[str, int]:
    """``host``, ``host:port`` or ``[ipv6]:port``. Raises ValueError that says what is wrong."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[3] or PORT) < 65536:
        raise ValueError(f"{text!r} is no address: write HOST, HOST:PORT or [IPV6]:PORT")
    return found[1] or found[2], int(found[3] or PORT)
