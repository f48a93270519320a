"""A client that says what it is told to, however wrong, and waits for nothing without an end."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pytest_hil.usbip.conformance.check import Broken, Clock, NotApplicable
from pytest_hil.usbip.descriptors import (
    Configuration,
    DescriptorError,
    EndpointDescriptor,
    parse_configuration,
)
from pytest_hil.usbip.messages import (
    DEVICE_SIZE,
    INTERFACE_SIZE,
    ISO_SIZE,
    MAX_DEVICES,
    OP_SIZE,
    URB_SIZE,
    Bytes,
    Code,
    Command,
    Device,
    Direction,
    IsoPacket,
    Malformed,
    OpHeader,
    OpStatus,
    ReqDevlist,
    ReqImport,
    Submit,
    Unlink,
)
from pytest_hil.usbip.urb import TransferType

_HEADER = struct.Struct(">IIIIIiiiii8s")
_LINGER = struct.pack("ii", 1, 0)
# Between two tries to import a device that its last client has only just left: nothing tells when
# the server has noticed.
_AGAIN = 0.05


def shown(data: Bytes, most: int = 64) -> str:
    """Bytes in hex, not all of many."""
    more = f" … ({len(data)} bytes)" if len(data) > most else ""
    return (bytes(data[:most]).hex(" ", 4) or "nothing") + more


class Wire:
    """One connection."""

    def __init__(self, address: tuple[str, int], clock: Clock) -> None:
        self._clock = clock
        try:
            self._socket = socket.create_connection(address, clock.deadline() - time.monotonic())
        except OSError as error:
            raise Broken("a connection", f"{error.strerror or error}") from None
        with contextlib.suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, data: Bytes, *, may_fail: bool = False) -> None:
        """All of it. ``may_fail``: the server may have hung up, or may take no more."""
        try:
            self._socket.settimeout(max(self._clock.deadline() - time.monotonic(), 0.001))
            self._socket.sendall(data)
        except OSError as error:
            if not may_fail:
                why = "took no more" if isinstance(error, TimeoutError) else f"{error.strerror}"
                raise Broken("a server that takes the request", why) from None

    def take(self, count: int, what: str) -> bytes:
        """Just so many bytes, within one step. Raises Broken."""
        got = bytearray()
        deadline = self._clock.deadline()
        while len(got) < count:
            part = self._some(count - len(got), deadline)
            if not part:
                end = "silence" if part is None else "the end of the connection"
                raise Broken(f"{count} bytes: {what}", f"{shown(got)}, then {end}")
            got += part
        return bytes(got)

    def rest(self, most: int = 2**20) -> tuple[bytes, bool]:
        """What comes until the end or a silence, or ``most`` bytes; whether it was the end."""
        got = bytearray()
        deadline = self._clock.deadline()
        while len(got) < most:
            part = self._some(min(most - len(got), 2**16), min(self._clock.quiet(), deadline))
            if not part:
                return bytes(got), part is not None
            got += part
        return bytes(got), False

    def finish(self) -> tuple[bytes, bool]:
        """Say that no more will come, then the same."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        return self.rest()

    def close(self, *, reset: bool = False) -> None:
        """Hang up, by RST if ``reset``."""
        with contextlib.suppress(OSError):
            if reset:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER)
            self._socket.close()

    def _some(self, count: int, deadline: float) -> bytes | None:
        """b"" at the end, None in silence."""
        left = deadline - time.monotonic()
        if left <= 0:
            return None
        try:
            self._socket.settimeout(left)
            return self._socket.recv(count)
        except TimeoutError:
            return None
        except OSError:
            return b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply, with each field as it came. ``status`` is the first field after the basic header."""

    head: bytes
    data: bytes = b""
    iso: tuple[IsoPacket, ...] = ()

    @property
    def fields(self) -> tuple[int, ...]:
        """Command, seqnum, devid, direction, endpoint, status, actual, start, packets, errors."""
        return _HEADER.unpack(self.head)[:-1]

    @property
    def command(self) -> int:
        return self.fields[0]

    @property
    def seqnum(self) -> int:
        return self.fields[1]

    @property
    def status(self) -> int:
        return self.fields[5]

    @property
    def actual(self) -> int:
        return self.fields[6]

    @property
    def packets(self) -> int:
        return self.fields[8]

    @property
    def errors(self) -> int:
        return self.fields[9]

    def __str__(self) -> str:
        return shown(self.head + self.data, 96)


@dataclass(frozen=True, slots=True)
class _Flight:
    direction: Direction
    length: int
    packets: int


def setup(kind: int, request: int, value: int = 0, index: int = 0, length: int = 0) -> bytes:
    """A control transfer's eight bytes (USB 2.0, 9.3)."""
    return struct.pack("<BBHHH", kind, request, value, index, length)


class Attached:
    """An imported device: URBs, numbered, and their replies as they came."""

    def __init__(self, wire: Wire, device: Device, reply: bytes) -> None:
        self.wire = wire
        self.device = device
        self.reply = reply
        self._numbers = itertools.count(1)
        self._flying: dict[int, _Flight] = {}

    # requests

    def made(
        self,
        address: int,
        *,
        length: int = 0,
        data: Bytes = b"",
        setup: bytes = bytes(8),
        packets: int = 0,
        iso: Sequence[IsoPacket] = (),
        seqnum: int | None = None,
        flags: int = 0,
        interval: int = 1,
    ) -> Submit:
        """A SUBMIT, not yet sent, whose reply is waited for from now on."""
        way = Direction.IN if address & 0x80 else Direction.OUT
        size = length if way is Direction.IN else len(data)
        number = next(self._numbers) if seqnum is None else seqnum
        self._flying[number] = _Flight(way, size, len(iso))
        return Submit(
            seqnum=number,
            devid=self.device.devid,
            direction=way,
            endpoint=address & 15,
            length=size,
            setup=setup,
            data=data,
            flags=flags,
            packets=packets,
            interval=interval,
            iso=tuple(iso),
        )

    def submit(self, address: int, **fields: object) -> int:
        """Send one; its number."""
        submit = self.made(address, **fields)  # type: ignore[arg-type]
        self.wire.send(submit.pack())
        return submit.seqnum

    def asked(self, length: int = 18, **fields: object) -> Submit:
        """GET_DESCRIPTOR(device), not yet sent: what every device answers."""
        request = setup(0x80, 6, 0x0100, 0, length)
        return self.made(0x80, length=length, setup=request, **fields)  # type: ignore[arg-type]

    def unlinking(self, seqnum: int) -> Unlink:
        return Unlink(next(self._numbers), self.device.devid, seqnum)

    def unlink(self, seqnum: int) -> int:
        unlink = self.unlinking(seqnum)
        self.wire.send(unlink.pack())
        return unlink.seqnum

    # replies

    def answer(self) -> Answer:
        """The next reply. Raises Broken."""
        head = self.wire.take(URB_SIZE, "a reply to a URB")
        command, seqnum, *_rest = _HEADER.unpack(head)
        if command == Command.RET_UNLINK:
            return Answer(head)
        if command != Command.RET_SUBMIT:
            raise Broken("the command 3 (RET_SUBMIT) or 4 (RET_UNLINK)", shown(head))
        flight = self._flying.pop(seqnum, None)
        if flight is None:
            raise Broken("the seqnum of a URB in flight", shown(head))
        actual = Answer(head).actual
        if not 0 <= actual <= flight.length:
            raise Broken(f"an actual_length of 0 to {flight.length}", shown(head))
        data = self.wire.take(actual, "data") if flight.direction and actual else b""
        iso = self.wire.take(flight.packets * ISO_SIZE, "packets") if flight.packets else b""
        return Answer(
            head, data, tuple(IsoPacket(*each) for each in struct.iter_unpack(">IIIi", iso))
        )

    def answer_to(self, seqnum: int) -> Answer:
        """The next reply, which is to this one."""
        answer = self.answer()
        if answer.seqnum != seqnum:
            raise Broken(f"the reply to seqnum {seqnum:#x}", str(answer))
        return answer

    def do(self, address: int, **fields: object) -> Answer:
        """Send one, and its reply."""
        return self.answer_to(self.submit(address, **fields))

    def control(
        self, kind: int, request: int, value: int = 0, index: int = 0, data: Bytes | int = 0
    ) -> Answer:
        """A control transfer: ``data`` is an OUT's, or how much an IN may bring."""
        length = data if isinstance(data, int) else len(data)
        body = b"" if isinstance(data, int) else data
        eight = setup(kind, request, value, index, length)
        return self.do(kind & 0x80, length=length, data=body, setup=eight)

    def fence(self) -> Answer:
        """A request that every device answers: its reply is the very next thing to come."""
        submit = self.asked()
        self.wire.send(submit.pack())
        answer = self.answer_to(submit.seqnum)
        if answer.status or answer.actual != 18:
            raise Broken("18 bytes of a device descriptor", str(answer))
        return answer


class Client:
    """What a check is given: the server, and where it writes what it saw."""

    def __init__(self, address: tuple[str, int], busid: str, clock: Clock) -> None:
        self.address = address
        self.clock = clock
        self.expected = ""
        self.seen = ""
        self._busid = busid
        self._wires: list[Wire] = []

    def expect(self, holds: bool, expected: str, seen: object) -> None:
        """Write it down; raises Broken unless it holds."""
        if isinstance(seen, bytes | bytearray | memoryview):
            seen = shown(seen)
        self.expected, self.seen = expected, str(seen)
        if not holds:
            raise Broken(self.expected, self.seen)

    # connections

    def wire(self) -> Wire:
        wire = Wire(self.address, self.clock)
        self._wires.append(wire)
        return wire

    def close(self) -> None:
        """Hang up everything."""
        for wire in self._wires:
            wire.close()
        self._wires.clear()

    @property
    def busid(self) -> str:
        """The device to import: the first of the list, unless it was said."""
        if not self._busid:
            _raw, devices = self.devlist()
            if not devices:
                raise NotApplicable("the server exports no device")
            self._busid = devices[0].busid
        return self._busid

    def devlist(self, wire: Wire | None = None) -> tuple[bytes, list[Device]]:
        """Ask for it: all of its bytes, and what they say. Raises Broken."""
        if wire is None:
            wire = self.wire()
            try:
                return self.devlist(wire)
            finally:
                wire.close()
        wire.send(ReqDevlist().pack())
        raw = wire.take(OP_SIZE, "the header of OP_REP_DEVLIST")
        status = OpHeader.parse(raw).status
        if status:
            raise Broken("status 0 in OP_REP_DEVLIST", shown(raw))
        raw += wire.take(4, "the number of devices")
        count = int.from_bytes(raw[-4:], "big")
        if count > MAX_DEVICES:
            raise Broken("a number of devices that a host can have", shown(raw))
        devices = []
        for _ in range(count):
            one = wire.take(DEVICE_SIZE, "a device")
            more = wire.take(INTERFACE_SIZE * one[-1], "its interfaces") if one[-1] else b""
            raw += one + more
            devices.append(_device(one, more))
        return raw, devices

    def ask_import(self, wire: Wire, busid: str) -> tuple[int, bytes]:
        """Ask for it: the status of the reply, and all of its bytes. Raises Broken."""
        wire.send(ReqImport(busid).pack())
        raw = wire.take(OP_SIZE, "the header of OP_REP_IMPORT")
        header = OpHeader.parse(raw)
        if header.code != Code.REP_IMPORT:
            raise Broken(f"the code {Code.REP_IMPORT:#06x}", shown(raw))
        if not header.status:
            raw += wire.take(DEVICE_SIZE, "the device")
        return header.status, raw

    def imported(self) -> Attached:
        """The device, as soon as whoever had it before is gone. Raises Broken."""
        deadline = self.clock.deadline()
        while True:
            wire = self.wire()
            status, raw = self.ask_import(wire, self.busid)
            if not status:
                return Attached(wire, _device(raw[OP_SIZE:], b""), raw)
            wire.close()
            if status == OpStatus.NODEV:
                raise Broken(f"the device {self.busid} to be imported", shown(raw))
            if time.monotonic() + _AGAIN > deadline:
                raise Broken("the device to be free once more", shown(raw))
            time.sleep(_AGAIN)

    def configured(self) -> tuple[Attached, Configuration]:
        """The device, imported and in its first configuration. Raises Broken."""
        attached = self.imported()
        found = configuration(attached)
        done = attached.control(0, 9, found.value)
        if done.status:
            raise Broken("SET_CONFIGURATION to succeed", str(done))
        return attached, found

    # the server after a check

    def alive(self) -> None:
        """Somebody answers, whatever. Raises Broken."""
        wire = self.wire()
        wire.send(ReqDevlist().pack())
        wire.take(OP_SIZE, "an answer to OP_REQ_DEVLIST")
        wire.close()

    def next_client(self) -> None:
        """The server lists its devices, gives this one, and that works. Raises Broken."""
        self.devlist()
        attached = self.imported()
        attached.fence()
        attached.wire.close()


def _device(data: bytes, interfaces: bytes) -> Device:
    try:
        return Device.parse(data, interfaces)
    except Malformed as error:
        raise Broken(f"{error.fault.value}: {error.wanted}", shown(data, 312)) from None


def configuration(attached: Attached) -> Configuration:
    """The first configuration's descriptors. Raises Broken."""
    head = attached.control(0x80, 6, 0x0200, 0, 9)
    if head.status or head.actual != 9:
        raise Broken("9 bytes of a configuration descriptor", str(head))
    total = int.from_bytes(head.data[2:4], "little")
    whole = attached.control(0x80, 6, 0x0200, 0, total)
    try:
        return parse_configuration(whole.data)
    except DescriptorError as error:
        raise Broken("a configuration descriptor that holds together", f"{error}") from None


def endpoint(found: Configuration, kind: TransferType, way: Direction) -> EndpointDescriptor | None:
    """The first such endpoint of the alternate settings 0."""
    return next(
        (
            one
            for interface in found.interfaces
            if interface.alternate == 0
            for one in interface.endpoints
            if one.type is kind and one.direction is way
        ),
        None,
    )


LOOPBACK = (0x1209, 0x0001)


def is_loopback(device: Device) -> bool:
    """Whether it gives back what it gets, as checks of data need."""
    return (device.vendor_id, device.product_id) == LOOPBACK


def silent(attached: Attached, found: Configuration) -> int:
    """The address of an IN endpoint that waits. Raises NotApplicable."""
    if is_loopback(attached.device):
        return 0x81
    one = endpoint(found, TransferType.INTERRUPT, Direction.IN)
    if one is None:
        raise NotApplicable("the device has no endpoint where a transfer waits (interrupt IN)")
    return one.address
