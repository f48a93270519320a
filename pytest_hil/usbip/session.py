"""One importer at the exporter: its connection, and its transfers in flight.

Whether a transfer was completed or unlinked is decided once, under one lock, and the reply goes
into one queue at that moment: so RET_SUBMIT always stands before the RET_UNLINK that came too late.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

from pytest_hil.usbip.connection import ExporterConnection, State
from pytest_hil.usbip.messages import (
    MAX_TRANSFER,
    NO_ENDPOINT,
    OVERFLOW,
    PROTOCOL,
    SHORT,
    SHORT_NOT_OK,
    TOO_LARGE,
    UNLINKED,
    Bytes,
    Device,
    Direction,
    Fault,
    IsoPacket,
    Malformed,
    OpStatus,
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetUnlink,
    Submit,
    Unlink,
    pack_packets,
    pack_ret_submit,
)
from pytest_hil.usbip.urb import TransferType, Urb

if TYPE_CHECKING:
    from pytest_hil.usbip.exporter import Observer, Plugged

MiB = 2**20

# Errors of transfers that one connection tells of; an importer may ask for any number.
_MAX_TOLD = 100

# Headers and data of replies that are written together.
_PIECE = 32

# What a healthy device says every day.
_EVERYDAY = frozenset({SHORT, UNLINKED})

# An enumeration's members are slow to look up (in Python 3.11), and this is for every transfer.
_IN = Direction.IN


@dataclass(frozen=True, slots=True)
class Limits:
    """What one importer may cost. Bytes and seconds.

    ``transfer``: one transfer's buffer; ``in_flight``, ``in_flight_bytes``: all of them together,
    beyond which they are refused with −ENOMEM; ``connections``: of all importers together;
    ``patience``: half a request, or none, and then silence; ``unsent``: replies that nobody takes,
    beyond which no further request is read.
    """

    transfer: int = MAX_TRANSFER
    in_flight: int = 4096
    in_flight_bytes: int = 64 * MiB
    connections: int = 256
    patience: float = 10.0
    unsent: int = 4 * MiB


class Hall(Protocol):
    """The exporter, as its sessions see it. Called in the loop's thread."""

    limits: Limits

    def devices_for(self, peer: str) -> list[Device]:
        """What this importer may see."""

    def take(self, busid: str, session: Session) -> Plugged | OpStatus:
        """Give a device to an importer, or say why not."""

    def left(self, session: Session) -> None:
        """This importer is gone."""

    def tell(self, what: str, **facts: object) -> None:
        """Something happened."""

    def soon(self, call: Callable[[], object]) -> None:
        """Let the loop do it."""


class Session(asyncio.BufferedProtocol):
    """A connection of an importer; the owner of its transfers."""

    def __init__(self, hall: Hall, peer: str) -> None:
        self.peer = peer
        self.plugged: Plugged | None = None
        self._observer: Observer | None = None
        self._hall = hall
        self._limits = hall.limits
        self._connection = ExporterConnection(self._is_iso, limit=self._limits.transfer)
        self._transport: asyncio.Transport | None = None
        self._lock = threading.Lock()
        self._pending: dict[int, Urb] = {}
        self._pending_bytes = 0
        self._out: list[Bytes] = []
        self._unsent = 0
        self._full = False
        self._flushing = False
        self._reader = 0
        self._received = 0
        self._timer: asyncio.TimerHandle | None = None
        self._told = 0
        self._over = False

    # --- asyncio's side, in the loop's thread ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=self._limits.unsent)
        _tune(transport.get_extra_info("socket"))
        self._watch()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        return self._connection.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        self._received += nbytes
        self._connection.received(nbytes)
        self._serve()

    def _serve(self) -> None:
        """What came and is not answered yet, as long as the importer takes its replies.

        One batch may ask for far more than what is allowed to be unsent: looked at each time.
        """
        # What these requests are answered with at once goes out together, and in pieces: the
        # importer is busy with the first while the rest is made here.
        self._reader = threading.get_ident()
        try:
            while not self._full and not self._over:
                request = self._connection.next_event()
                if request is None:
                    break
                if isinstance(request, Submit):
                    self._submit(request)
                elif isinstance(request, Unlink):
                    self._unlink(request)
                else:
                    self._operation(request)
                if len(self._out) >= _PIECE or self._unsent > self._limits.unsent:
                    self._flush()
        except Malformed as error:
            self._tell("malformed", fault=error.fault.value, error=str(error))
            self.abort()
        except Exception as error:
            # A device that cannot say what its endpoints are: nothing that follows can be read.
            self._broke(error)
            self.abort()
        finally:
            self._reader = 0
            self._flush()
        if self._timer is None and self._waits():
            self._watch()

    def eof_received(self) -> bool:
        if not self._over:
            try:
                self._connection.eof()
            except Malformed as error:
                self._tell("malformed", fault=error.fault.value, error=str(error))
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the same either way
        self._over = True
        self._connection.close()
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            pending = list(self._pending.values())
            self._pending.clear()
            self._pending_bytes = 0
            self._out.clear()
        if self.plugged is not None:
            device = self.plugged.device
            for urb in pending:
                self._gave_up(urb)
                self._ask(device.cancel, urb)
            self._ask(device.released)
        self._hall.left(self)

    def pause_writing(self) -> None:
        # It does not take its replies: it gets no new ones.
        self._full = True
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._full = False
        if self._transport is not None and not self._transport.is_closing():
            self._serve()
            if not self._full and not self._over:
                self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the importer now. In the loop's thread."""
        self._over = True
        if self._transport is not None:
            self._flush()
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._transport.abort()

    # --- silence ---

    def _waits(self) -> bool:
        """Whether the next bytes are due: half a message, or no device yet."""
        return self._connection.state is not State.ATTACHED or self._connection.partial

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._limits.patience, self._impatient, self._received)

    def _impatient(self, before: int) -> None:
        self._timer = None
        if self._over or not self._waits():
            return
        if self._received == before and not self._full:
            self._tell("malformed", fault="silence", error="half a request, and then nothing")
            self.abort()
        else:
            self._watch()

    # --- requests ---

    def _operation(self, request: ReqDevlist | ReqImport) -> None:
        if isinstance(request, ReqDevlist):
            devices = self._hall.devices_for(self.peer)
            self._tell("list", devices=len(devices))
            self._send(self._connection.send(RepDevlist(tuple(devices))))
            return
        found = self._hall.take(request.busid, self)
        if isinstance(found, OpStatus):
            self._tell("refused", busid=request.busid, status=found.name)
            self._send(self._connection.send(RepImport(None, found)))
            return
        self.plugged = found
        self._observer = found.observer
        self._tell("import", busid=request.busid)
        self._send(self._connection.send(RepImport(found.description)))
        self._ask(found.device.imported)

    def _is_iso(self, endpoint: int, direction: Direction) -> bool | None:
        assert self.plugged is not None
        kind = self.plugged.device.transfer_type(endpoint, direction)
        return None if kind is None else kind is TransferType.ISO

    def _submit(self, submit: Submit) -> None:
        plugged = self.plugged
        assert plugged is not None
        kind: TransferType | None
        if submit.endpoint:
            kind = plugged.device.transfer_type(submit.endpoint, submit.direction)
        else:
            kind = TransferType.CONTROL
        urb = Urb(submit, kind if kind is not None else TransferType.BULK, self)
        with self._lock:
            if submit.seqnum in self._pending:
                raise Malformed(
                    Fault.SEQNUM, submit.seqnum, "a number that is not in flight", data=submit.setup
                )
            full = (
                len(self._pending) >= self._limits.in_flight
                or submit.length > self._limits.transfer
                or self._pending_bytes + submit.length > self._limits.in_flight_bytes
            )
            self._pending[submit.seqnum] = urb
            self._pending_bytes += submit.length
        if self._observer is not None:
            self._observer.submitted(urb, plugged.description)
        if full:
            urb.complete(status=TOO_LARGE)
        elif kind is None:
            urb.complete(status=NO_ENDPOINT)
        else:
            try:
                plugged.device.submit(urb)
            except Exception as error:
                self._broke(error)
                urb.complete(status=PROTOCOL)

    def _unlink(self, unlink: Unlink) -> None:
        with self._lock:
            urb = self._pending.pop(unlink.unlinked, None)
            if urb is not None:
                self._pending_bytes -= urb.length
            self._out.append(RetUnlink(unlink.seqnum, UNLINKED if urb is not None else 0).pack())
        if urb is not None and self.plugged is not None:
            self._gave_up(urb)
            self._ask(self.plugged.device.cancel, urb)

    def _ask(self, call: Callable[..., object], *args: object) -> None:
        """Something of the device's: what it raises is told, and hurts nobody."""
        try:
            call(*args)
        except Exception as error:
            self._broke(error)

    def _broke(self, error: Exception) -> None:
        where = "".join(traceback.format_exception(error)).rstrip()
        self._tell("device-error", busid=self._busid, error=repr(error), traceback=where[-4000:])

    # --- replies: the owner of transfers, in any thread ---

    def finish(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket], errors: int
    ) -> bool:
        incoming = urb.direction is _IN
        if len(iso) != len(urb.iso):
            # The importer waits for all of them, however it went.
            iso = [replace(packet, actual=0, status=status) for packet in urb.iso]
            data, actual, errors = b"", 0, len(iso)
        if actual > urb.length:
            status, actual = OVERFLOW, urb.length
        if incoming:
            # The header says how much follows, and just that does.
            if actual < len(data):
                data = memoryview(data)[:actual]
            elif actual > len(data):
                actual = len(data)
            if not status and not iso and actual < urb.length and urb.flags & SHORT_NOT_OK:
                status = SHORT
        seqnum = urb.seqnum
        head = pack_ret_submit(seqnum, status, actual, urb.start_frame, len(iso), errors)
        tail = pack_packets(iso) if iso else b""
        with self._lock:
            if self._pending.get(seqnum) is not urb:
                return False
            del self._pending[seqnum]
            self._pending_bytes -= urb.length
            self._out.append(head)
            self._unsent += len(head) + actual if incoming else len(head)
            if incoming and actual:
                self._out.append(data)
            if tail:
                self._out.append(tail)
            wake = not self._flushing and self._reader != threading.get_ident()
            self._flushing = self._flushing or wake
        if self._observer is not None:
            self._observer.completed(urb, status, data, actual, iso)
        if status < 0 and status not in _EVERYDAY and self._told < _MAX_TOLD:
            self._told += 1
            where = {"endpoint": urb.address, "seqnum": urb.seqnum}
            self._tell("urb-error", busid=self._busid, status=status, **where)
        if wake:
            self._hall.soon(self._flush)
        return True

    def disconnect(self) -> None:
        self._hall.soon(self.abort)

    def _gave_up(self, urb: Urb) -> None:
        if self._observer is not None:
            self._observer.completed(urb, UNLINKED, b"", 0, ())

    def _send(self, data: bytes) -> None:
        with self._lock:
            self._out.append(data)

    def _flush(self) -> None:
        """In the loop's thread: write all replies in one piece."""
        with self._lock:
            self._flushing = False
            out, self._out = self._out, []
            self._unsent = 0
        transport = self._transport
        if out and transport is not None and not transport.is_closing():
            transport.write(b"".join(out) if len(out) > 1 else out[0])

    @property
    def _busid(self) -> str:
        return self.plugged.busid if self.plugged is not None else ""

    def _tell(self, what: str, **facts: Any) -> None:
        self._hall.tell(what, peer=self.peer, **facts)


def _tune(sock: socket.socket) -> None:
    """One write a reply and no waiting for more; a dead peer is found out within a minute."""
    for level, option, value in (
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 30),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ):
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            return  # no TCP
