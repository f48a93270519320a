"""USB/IP's two roles as state machines: bytes in, messages out.

No socket, no thread, no clock. Whoever does the I/O receives into :meth:`Receiver.buffer`, tells
how much came with :meth:`Receiver.advance`, and sends what ``send`` returns. What the other says
wrong is one :class:`~pytest_hil.usbip.messages.Malformed`, after which the connection is dead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from enum import Enum, unique
from typing import Generic, NamedTuple, NoReturn, TypeVar

from pytest_hil.usbip.messages import (
    BUSID_SIZE,
    DEVICE_SIZE,
    INTERFACE_SIZE,
    ISO_SIZE,
    MAX_ISO_PACKETS,
    MAX_TRANSFER,
    OP_SIZE,
    URB_SIZE,
    VERSION,
    Bytes,
    Code,
    Command,
    Device,
    Direction,
    Fault,
    IsoPacket,
    Malformed,
    OpHeader,
    OpStatus,
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
    command_of,
)

KiB = 2**10

_SMALL = 64 * KiB
# What is waited for in the small buffer; anything longer gets its own. All descriptors of an
# isochronous URB, a device with its interfaces and most transfers are shorter.
_WAITS = MAX_ISO_PACKETS * ISO_SIZE
_COUNT_SIZE = 4
# A long payload's buffer is at first this many times what came of it, and then grows by as much as
# came: a claim costs nothing but what is really sent.
_AHEAD = 32


@unique
class State(Enum):
    """Where a connection is. ASKED and LISTED wait for the exporter's answer."""

    OPEN = "open"
    LISTED = "listed"
    ASKED = "asked"
    ATTACHED = "attached"
    DEAD = "dead"


# Looked at for every transfer; an enumeration's members are slow to look up (in Python 3.11).
_ATTACHED, _DEAD = State.ATTACHED, State.DEAD
_SUBMIT, _RET_SUBMIT = int(Command.SUBMIT), int(Command.RET_SUBMIT)

Table = dict[tuple[State, type], State]

# Linux's usbipd serves one operation a connection; there is no harm in more, until one imports.
# A RepImport that refuses leads back to OPEN: see _after_reply.
TABLE: Table = {
    (State.OPEN, ReqDevlist): State.LISTED,
    (State.OPEN, ReqImport): State.ASKED,
    (State.LISTED, RepDevlist): State.OPEN,
    (State.ASKED, RepImport): State.ATTACHED,
    (State.ATTACHED, Submit): State.ATTACHED,
    (State.ATTACHED, Unlink): State.ATTACHED,
    (State.ATTACHED, RetSubmit): State.ATTACHED,
    (State.ATTACHED, RetUnlink): State.ATTACHED,
}

Request = ReqDevlist | ReqImport | Submit | Unlink
Reply = RepDevlist | RepImport | RetSubmit | RetUnlink
EventT = TypeVar("EventT", Request, Reply)


def next_state(state: State, message: Request | Reply) -> State:
    """What follows. Raises Malformed (``ORDER``) for a message that cannot come now."""
    after = TABLE.get((state, type(message)))
    if after is None:
        name = type(message).__name__
        raise Malformed(Fault.ORDER, name, f"what a connection takes that is {state.value}")
    if isinstance(message, RepImport) and message.device is None:
        return State.OPEN
    return after


class Receiver(Generic[EventT]):
    """Bytes of one direction, cut into messages. What both roles have in common.

    Many messages are parsed from one small buffer; a long payload is received straight into a
    bytearray of its own, which then is the message's ``data``.
    """

    def __init__(self) -> None:
        self.state = State.OPEN
        self._small = bytearray(_SMALL)
        self._view = memoryview(self._small)
        self._start = 0
        self._end = 0
        self._large: bytearray | None = None
        self._large_view: memoryview | None = None
        self._filled = 0
        self._wanted = 0

    # In

    def buffer(self) -> memoryview:
        """Where the next bytes go: never empty, unless an answer of ours is due first."""
        if self._large is not None and self._filled < self._wanted:
            return self._large_buffer(self._large)
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end > _SMALL // 2 and self._start:
            left = self._end - self._start
            self._small[:left] = self._small[self._start : self._end]
            self._start, self._end = 0, left
        return self._view[self._end :]

    def received(self, count: int) -> None:
        """So many bytes were put at the beginning of :meth:`buffer`."""
        if self._large is not None and self._filled < self._wanted:
            self._filled += count
        else:
            self._end += count

    def events(self) -> Iterator[EventT]:
        """The messages that are there, one by one: the state may change between two of them.

        Ends early after a request that has to be answered first (ask again then). Raises Malformed.
        """
        while (event := self.next_event()) is not None:
            yield event

    def next_event(self) -> EventT | None:
        """The next message, or None: nothing whole is there. Raises Malformed."""
        if self.state is _DEAD:
            return None
        try:
            return self._parse()
        except Malformed:
            self.close()
            raise

    def advance(self, count: int) -> list[EventT]:
        """:meth:`received`, and all :meth:`events` at once."""
        self.received(count)
        return list(self.events())

    def feed(self, data: Bytes) -> list[EventT]:
        """The same for bytes from elsewhere. Raises Malformed."""
        events: list[EventT] = []
        rest = memoryview(data).cast("B")
        while len(rest) and self.state is not State.DEAD:
            place = self.buffer()
            count = min(len(place), len(rest))
            if not count:
                raise Malformed(Fault.ORDER, f"{len(rest)} bytes", "to wait for the answer")
            place[:count] = rest[:count]
            rest = rest[count:]
            events += self.advance(count)
        return events

    def eof(self) -> None:
        """No more will come. Raises Malformed (``CUT``) when that is in the middle of a message."""
        partial = self.partial
        there = bytes(self._small[self._start : self._end])
        state = self.state
        self.close()
        if partial and state is not State.DEAD:
            raise Malformed(Fault.CUT, "the end", "the rest of a message", data=there)

    def close(self) -> None:
        """Nothing is parsed any more, and nothing is kept."""
        self.state = State.DEAD
        self._start = self._end = 0
        self._large = self._large_view = None
        self._filled = self._wanted = 0

    @property
    def partial(self) -> bool:
        """There is the beginning of a message."""
        return self._start != self._end or self._large is not None

    # For the roles

    def _parse(self) -> EventT | None:
        raise NotImplementedError

    def _peek(self, size: int) -> bytes | None:
        """The next bytes of the small buffer, which stay there; None until they came."""
        if self._large is not None or self._end - self._start < size:
            return None
        return bytes(self._view[self._start : self._start + size])

    def _take(self, size: int) -> bytes | bytearray | None:
        """The next bytes; None until they all came. To be asked again with the same size."""
        if self._large is None:
            at = self._start
            if self._end - at >= size:
                self._start = at + size
                return bytes(self._view[at : at + size])
            if size <= _WAITS:
                return None
            self._begin_large(size)
            return None
        if self._filled < size:
            return None
        data, self._large, self._large_view = self._large, None, None
        return data

    def _begin_large(self, size: int) -> None:
        there = self._end - self._start
        self._large = bytearray(min(size, max(_WAITS, there * _AHEAD)))
        self._large[:there] = self._view[self._start : self._end]
        self._start = self._end = 0
        self._filled, self._wanted = there, size

    def _large_buffer(self, large: bytearray) -> memoryview:
        if self._large_view is not None:
            # A bytearray with a view of it cannot grow.
            self._large_view.release()
        if self._filled == len(large):
            large += bytes(min(self._wanted - len(large), len(large)))
        # Two views, because the one that a slice is taken from has to go as well.
        with memoryview(large) as whole:
            self._large_view = whole[self._filled :]
        return self._large_view


# --- the exporter's side ---

IsIso = Callable[[int, Direction], bool | None]
"""Whether an endpoint is isochronous now; None if there is no such endpoint."""


class ExporterConnection(Receiver[Request]):
    """What an exporter hears: ReqDevlist, ReqImport, then Submit and Unlink.

    The transfer type is not on the wire, but says whether packets follow: ``is_iso`` is asked.
    ``limit`` bounds what an OUT brings, in bytes.
    """

    def __init__(self, is_iso: IsIso, *, limit: int = MAX_TRANSFER) -> None:
        super().__init__()
        self._devid = 0
        self._is_iso = is_iso
        self._limit = limit
        self._head: Submit | None = None
        self._count = 0
        self._data: Bytes | None = None

    def send(self, message: Reply) -> bytes:
        """The bytes of a reply. Raises Malformed (``ORDER``) if it cannot be said now."""
        self.state = next_state(self.state, message)
        if isinstance(message, RepImport) and message.device is not None:
            self._devid = message.device.devid
        return message.pack()

    @property
    def partial(self) -> bool:
        return self._head is not None or super().partial

    def _parse(self) -> Request | None:
        if self.state is _ATTACHED:
            if self._head is not None:
                return self._payload(self._head)
            head = self._take(URB_SIZE)
            return self._urb(head) if head is not None else None
        if self.state is State.OPEN:
            return self._operation()
        return None

    def _operation(self) -> Request | None:
        head = self._peek(OP_SIZE)
        if head is None:
            return None
        header = OpHeader.parse(head)
        if header.version == 0 and header.code in (Command.SUBMIT, Command.UNLINK):
            raise Malformed(Fault.ORDER, "a URB", "a device to be imported first", data=head)
        header.expect(Code.REQ_DEVLIST, Code.REQ_IMPORT)
        request: Request
        if header.code == Code.REQ_DEVLIST:
            self._take(OP_SIZE)
            request = ReqDevlist()
        else:
            whole = self._take(OP_SIZE + BUSID_SIZE)
            if whole is None:
                return None
            request = ReqImport.parse(whole[OP_SIZE:])
        self.state = next_state(self.state, request)
        return request

    def _urb(self, head: bytes | bytearray) -> Request | None:
        command = command_of(head)
        if command == _SUBMIT:
            submit = Submit.parse(head, limit=self._limit)
            if submit.devid != self._devid:
                self._refuse_devid(submit.devid, head)
            self._count = self._packets(submit, head) if submit.packets else 0
            if not self._count and (submit.direction or not submit.length):
                return submit
            self._head, self._data = submit, None
            return self._payload(submit)
        if command == Command.UNLINK:
            unlink = Unlink.parse(head)
            if unlink.devid != self._devid:
                self._refuse_devid(unlink.devid, head)
            return unlink
        if command in (VERSION << 16 | Code.REQ_DEVLIST, VERSION << 16 | Code.REQ_IMPORT):
            raise Malformed(Fault.ORDER, "an operation", "URBs, after an import", data=head)
        raise Malformed(Fault.COMMAND, command, "1 (SUBMIT) or 2 (UNLINK)", data=head)

    def _refuse_devid(self, devid: int, head: Bytes) -> NoReturn:
        # Linux's stub (valid_request in drivers/usb/usbip/stub_rx.c) drops the connection too.
        wanted = f"{self._devid:#x}, which was imported"
        raise Malformed(Fault.DEVID, devid, wanted, data=head)

    def _packets(self, submit: Submit, head: Bytes) -> int:
        """How many descriptors follow."""
        iso = self._is_iso(submit.endpoint, submit.direction) if submit.endpoint else False
        if iso is None:
            # A peer that believes in an endpoint which is not there: it says itself what it sends.
            iso = 0 < submit.packets <= MAX_ISO_PACKETS
        if not iso:
            return 0
        if not 0 <= submit.packets <= MAX_ISO_PACKETS:
            wanted = f"0 to {MAX_ISO_PACKETS}"
            raise Malformed(Fault.PACKETS, submit.packets, wanted, data=head)
        return submit.packets

    def _payload(self, head: Submit) -> Request | None:
        if self._data is None:
            self._data = self._take(0 if head.direction else head.length)
            if self._data is None:
                return None
        iso: tuple[IsoPacket, ...] = ()
        if self._count:
            descriptors = self._take(self._count * ISO_SIZE)
            if descriptors is None:
                return None
            iso = IsoPacket.parse_all(descriptors, head.length)
        data, self._head, self._data = self._data, None, None
        return replace(head, data=data, iso=iso)

    def close(self) -> None:
        super().close()
        self._head = self._data = None


# --- the importer's side ---


class InFlight(NamedTuple):
    """What has to be known of a URB to understand its reply."""

    direction: Direction
    length: int
    iso: tuple[IsoPacket, ...]


class ImporterConnection(Receiver[Reply]):
    """What an importer hears: RepDevlist or RepImport as asked for, then RetSubmit and RetUnlink.

    Everything goes out through :meth:`send`, which remembers what has to be known of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.device: Device | None = None
        self.in_flight: dict[int, InFlight] = {}
        self.unlinking: dict[int, int] = {}
        self._busid = ""
        self._header: OpHeader | None = None
        self._devices: list[Device] = []
        self._left: int | None = None
        self._head: RetSubmit | None = None
        self._data: Bytes | None = None

    def send(self, message: Request) -> bytes:
        """The bytes of a request.

        Raises Malformed: ``ORDER`` if it cannot be said now, ``SEQNUM`` if it is in flight already.
        """
        after = next_state(self.state, message)
        if isinstance(message, Submit | Unlink):
            self._remember(message)
        elif isinstance(message, ReqImport):
            self._busid = message.busid
        data = message.pack()
        self.state = after
        return data

    @property
    def partial(self) -> bool:
        waits = self.state in (State.LISTED, State.ASKED)
        return waits or self._head is not None or super().partial

    def _remember(self, message: Submit | Unlink) -> None:
        seqnum = message.seqnum
        if seqnum in self.in_flight or seqnum in self.unlinking:
            raise Malformed(Fault.SEQNUM, seqnum, "one that is not in flight")
        if isinstance(message, Submit):
            self.in_flight[seqnum] = InFlight(message.direction, message.length, message.iso)
        else:
            self.unlinking[seqnum] = message.unlinked

    def _parse(self) -> Reply | None:
        if self.state is _ATTACHED:
            if self._head is not None:
                return self._payload(self._head)
            head = self._take(URB_SIZE)
            return self._urb(head) if head is not None else None
        if self.state is State.LISTED:
            return self._list()
        if self.state is State.ASKED:
            return self._import()
        if self._start != self._end:
            there = bytes(self._small[self._start : self._end])
            raise Malformed(Fault.ORDER, "bytes", "nothing, as nothing was asked", data=there)
        return None

    def _list(self) -> Reply | None:
        if self._header is None:
            head = self._take(OP_SIZE)
            if head is None:
                return None
            self._header = OpHeader.parse(head)
            self._header.expect(Code.REP_DEVLIST)
        if self._header.status:
            return self._listed(RepDevlist((), _status(self._header.status)))
        if self._left is None:
            count = self._take(_COUNT_SIZE)
            if count is None:
                return None
            self._left = RepDevlist.parse_count(count)
        while self._left:
            head = self._peek(DEVICE_SIZE)
            if head is None:
                return None
            interfaces = head[-1]
            whole = self._take(DEVICE_SIZE + INTERFACE_SIZE * interfaces)
            if whole is None:
                return None
            self._devices.append(Device.parse(whole, whole[DEVICE_SIZE:]))
            self._left -= 1
        return self._listed(RepDevlist(tuple(self._devices)))

    def _listed(self, reply: RepDevlist) -> RepDevlist:
        self._header, self._left, self._devices = None, None, []
        self.state = next_state(self.state, reply)
        return reply

    def _import(self) -> Reply | None:
        head = self._peek(OP_SIZE)
        if head is None:
            return None
        header = OpHeader.parse(head)
        header.expect(Code.REP_IMPORT)
        if header.status:
            self._take(OP_SIZE)
            reply = RepImport(None, _status(header.status))
        else:
            whole = self._take(OP_SIZE + DEVICE_SIZE)
            if whole is None:
                return None
            device = Device.parse(whole[OP_SIZE:])
            if device.busid != self._busid:
                # Linux's usbip attach refuses that too (tools/usb/usbip/src/usbip_attach.c).
                raise Malformed(Fault.BUSID, device.busid, f"{self._busid!r}, as asked for")
            self.device = device
            reply = RepImport(device)
        self.state = next_state(self.state, reply)
        return reply

    def _urb(self, head: bytes | bytearray) -> Reply | None:
        command = command_of(head)
        if command == _RET_SUBMIT:
            return self._ret_submit(RetSubmit.parse(head), head)
        if command == Command.RET_UNLINK:
            reply = RetUnlink.parse(head)
            if reply.seqnum not in self.unlinking:
                raise Malformed(Fault.SEQNUM, reply.seqnum, "that of an unlink", data=head)
            if reply.status > 0:
                raise Malformed(Fault.STATUS, reply.status, "0 or a negative errno", data=head)
            # Whatever it says, Linux's vhci gives the URB back then: no other reply may follow.
            self.in_flight.pop(self.unlinking.pop(reply.seqnum), None)
            return reply
        raise Malformed(Fault.COMMAND, command, "3 (RET_SUBMIT) or 4 (RET_UNLINK)", data=head)

    def _ret_submit(self, reply: RetSubmit, head: Bytes) -> Reply | None:
        urb = self.in_flight.get(reply.seqnum)
        if urb is None:
            raise Malformed(Fault.SEQNUM, reply.seqnum, "that of a URB in flight", data=head)
        if reply.actual > urb.length:
            raise Malformed(Fault.ACTUAL, reply.actual, f"at most {urb.length}", data=head)
        if urb.iso and reply.packets != len(urb.iso):
            raise Malformed(Fault.PACKETS, reply.packets, f"{len(urb.iso)}, as asked", data=head)
        if not urb.iso and not (urb.direction and reply.actual):
            del self.in_flight[reply.seqnum]
            return reply
        self._head, self._data = reply, None
        return self._payload(reply)

    def _payload(self, head: RetSubmit) -> Reply | None:
        urb = self.in_flight[head.seqnum]
        if self._data is None:
            self._data = self._take(head.actual if urb.direction else 0)
            if self._data is None:
                return None
        iso: tuple[IsoPacket, ...] = ()
        if urb.iso:
            descriptors = self._take(len(urb.iso) * ISO_SIZE)
            if descriptors is None:
                return None
            iso = IsoPacket.parse_all(descriptors, urb.length)
            total = sum(packet.actual for packet in iso)
            if total != head.actual:
                # Linux's vhci drops the connection (usbip_recv_iso in usbip_common.c).
                raise Malformed(Fault.ACTUAL, head.actual, f"{total}, the sum of its packets")
        del self.in_flight[head.seqnum]
        data, self._head, self._data = self._data, None, None
        return replace(head, data=data, iso=iso)

    def close(self) -> None:
        super().close()
        self._head = self._data = self._header = self._left = None
        self._devices = []


def _status(number: int) -> OpStatus | int:
    return OpStatus(number) if number in OpStatus._value2member_map_ else number
