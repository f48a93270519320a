"""The live exporter under a Hypothesis state machine: what becomes of transfers, and in what order.

A device that holds its transfers until it is told, a bare socket as the importer, and a model of
what is in flight. Every reply must come in the order in which the ends were decided: no RET_SUBMIT
after an unlink in time, RET_SUBMIT before the RET_UNLINK of one that came too late.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pytest_hil.usbip.connection import ImporterConnection, State
from pytest_hil.usbip.exporter import Exporter, Limits
from pytest_hil.usbip.messages import (
    NO_ENDPOINT,
    STALL,
    TOO_LARGE,
    UNLINKED,
    Device,
    Direction,
    Interface,
    OpStatus,
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
)
from pytest_hil.usbip.urb import TransferType, Urb

DEADLINE = 20.0
LIMIT = 64 * 1024
BUSID = "1-1"
IN, OUT = Direction.IN, Direction.OUT
KINDS = {(0, IN), (0, OUT), (1, IN), (2, OUT), (4, IN)}
# Of these the device ends every transfer at once, in the exporter's own thread.
AT_ONCE = 4
# Longer than what waits in the small buffer, so that long payloads are received as such too.
LENGTHS = st.sampled_from([0, 1, 63, 64, 512, 20_000])


class Holder:
    """A device that keeps every transfer until the test ends it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.held: dict[int, Urb] = {}
        self.cancelled: list[Urb] = []
        self.imports = 0
        self.releases = 0
        self.left_over = 0

    def describe(self) -> Device:
        return Device("", 0, 0, 3, 0x1209, 1, interfaces=(Interface(255, 0, 0),))

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        return TransferType.BULK if (endpoint, direction) in KINDS else None

    def plugged(self, unplug: Callable[[], None]) -> None:
        pass

    def imported(self) -> None:
        with self.changed:
            self.imports += 1
            self.changed.notify_all()

    def submit(self, urb: Urb) -> None:
        if urb.endpoint == AT_ONCE:
            assert urb.complete(urb.seqnum.to_bytes(4, "big"))
            return
        with self.changed:
            self.held[urb.seqnum] = urb
            self.changed.notify_all()

    def cancel(self, urb: Urb) -> None:
        with self.changed:
            assert self.held.pop(urb.seqnum, urb) is urb
            self.cancelled.append(urb)
            self.changed.notify_all()

    def released(self) -> None:
        with self.changed:
            self.left_over += len(self.held)
            self.releases += 1
            self.changed.notify_all()

    def wait(self, condition: Callable[[], bool]) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, DEADLINE), "the device waited in vain"


class ExporterMachine(RuleBasedStateMachine):
    """The model: ``flight`` is what the device holds, ``due`` the replies not read yet."""

    def __init__(self) -> None:
        super().__init__()
        self.exporter = Exporter(port=None, limits=Limits(transfer=LIMIT))
        self.device = Holder()
        self.seqnum = 0
        self.flight: dict[int, Submit] = {}
        self.ended: list[int] = []
        self.due: list[RetSubmit | RetUnlink] = []
        self.imports = 0
        self.plugged = self.exporter.plug(self.device, busid=BUSID)
        self.attach()

    # How

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(DEADLINE)
        self.exporter.adopt(theirs, peer="test")
        return ours

    def attach(self) -> None:
        self.sock = self.connect()
        self.importer = ImporterConnection()
        self.sock.sendall(self.importer.send(ReqImport(BUSID)))
        reply = self.hear(1)[0]
        assert isinstance(reply, RepImport)
        assert reply.device is not None
        self.devid = reply.device.devid
        self.imports += 1
        self.device.wait(lambda: self.device.imports == self.imports)

    def hear(self, count: int) -> list[object]:
        events: list[object] = []
        while len(events) < count:
            received = self.sock.recv_into(self.importer.buffer())
            assert received, f"the exporter closed after {events}, {count} were due"
            events += self.importer.advance(received)
        assert len(events) == count, f"more than was due: {events}"
        return events

    def drain(self) -> None:
        for heard, due in zip(self.hear(len(self.due)), self.due, strict=True):
            if isinstance(heard, RetSubmit) and isinstance(due, RetSubmit):
                assert (heard.seqnum, heard.status, heard.actual, bytes(heard.data)) == (
                    due.seqnum,
                    due.status,
                    due.actual,
                    due.data,
                )
            else:
                assert heard == due
        self.due.clear()

    def number(self) -> int:
        self.seqnum += 1
        return self.seqnum

    def make(self, endpoint: int, direction: Direction, length: int) -> Submit:
        seqnum = self.number()
        data = bytes((seqnum + n) % 256 for n in range(length)) if direction is OUT else b""
        return Submit(seqnum, self.devid, direction, endpoint, length, data=data)

    def pick(self, data: st.DataObject) -> Submit:
        return self.flight[data.draw(st.sampled_from(sorted(self.flight)))]

    def gone(self) -> None:
        """The importer is gone: all of its was cancelled, and ends no more."""
        self.device.wait(lambda: self.device.releases == self.imports)
        self.plugged.wait_released(DEADLINE)
        with self.device.changed:
            cancelled = {urb.seqnum: urb for urb in self.device.cancelled}
            assert not self.device.held
        assert set(self.flight) <= set(cancelled)
        assert not any(cancelled[seqnum].complete() for seqnum in self.flight)
        self.flight.clear()
        self.ended.clear()
        self.due.clear()
        self.sock.close()

    def hear_the_end(self) -> None:
        """What was due comes first; after it there is nothing but the end."""
        self.drain()
        assert self.sock.recv(1) == b""

    # What may happen

    @rule(endpoint=st.sampled_from([0, 1]), length=LENGTHS, way=st.sampled_from([IN, OUT]))
    def submit(self, endpoint: int, length: int, way: Direction) -> None:
        message = self.make(endpoint * (1 if way is IN else 2), way, length)
        self.sock.sendall(self.importer.send(message))
        self.device.wait(lambda: message.seqnum in self.device.held)
        assert bytes(self.device.held[message.seqnum].data) == message.data
        self.flight[message.seqnum] = message

    @rule(count=st.integers(2, 40), unlink_first=st.booleans())
    def submit_many_at_once(self, count: int, unlink_first: bool) -> None:
        several = [self.make(1, IN, 64) for _ in range(count)]
        wire = [self.importer.send(one) for one in several]
        kept = several
        if unlink_first:
            unlink = Unlink(self.number(), self.devid, several[0].seqnum)
            wire.append(self.importer.send(unlink))
            self.due.append(RetUnlink(unlink.seqnum, UNLINKED))
            kept = several[1:]
        self.sock.sendall(b"".join(wire))
        self.device.wait(lambda: several[-1].seqnum in self.device.held)
        if unlink_first:
            gone = several[0].seqnum
            self.device.wait(lambda: any(urb.seqnum == gone for urb in self.device.cancelled))
        self.flight.update((one.seqnum, one) for one in kept)

    @rule(unlinks=st.lists(st.booleans(), min_size=1, max_size=20))
    def submit_what_ends_at_once(self, unlinks: list[bool]) -> None:
        """With an unlink behind some of them, which is too late by just so much."""
        wire = []
        for unlinked in unlinks:
            message = self.make(AT_ONCE, IN, 64)
            wire.append(self.importer.send(message))
            body = message.seqnum.to_bytes(4, "big")
            self.due.append(RetSubmit(message.seqnum, 0, len(body), body))
            if unlinked:
                unlink = Unlink(self.number(), self.devid, message.seqnum)
                wire.append(self.importer.send(unlink))
                self.due.append(RetUnlink(unlink.seqnum, 0))
        self.sock.sendall(b"".join(wire))
        self.drain()

    @precondition(lambda self: len(self.flight) > 1)
    @rule()
    def complete_all(self) -> None:
        """One after the other without a pause: the replies come in this order."""
        for seqnum, message in self.flight.items():
            body = b"" if message.direction is OUT else bytes(message.length)
            assert self.device.held.pop(seqnum).complete(body)
            self.due.append(RetSubmit(seqnum, 0, message.length, body))
        self.ended += self.flight
        self.flight.clear()

    @rule(absent=st.booleans())
    def submit_what_cannot_be(self, absent: bool) -> None:
        message = self.make(9, IN, 8) if absent else self.make(1, IN, LIMIT + 1)
        self.sock.sendall(self.importer.send(message))
        self.due.append(RetSubmit(message.seqnum, NO_ENDPOINT if absent else TOO_LARGE))
        self.drain()
        assert message.seqnum not in self.device.held

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), how=st.sampled_from(["whole", "short", "stall"]))
    def complete(self, data: st.DataObject, how: str) -> None:
        message = self.pick(data)
        urb = self.device.held.pop(message.seqnum)
        status, body, actual = 0, b"", message.length
        if how == "stall":
            status, actual = STALL, 0
            assert urb.stall()
        else:
            if message.direction is IN:
                actual = message.length if how == "whole" else message.length // 2
                body = bytes(n % 251 for n in range(actual))
            assert urb.complete(body)
        assert not urb.complete(b""), "it ended twice"
        del self.flight[message.seqnum]
        self.ended.append(message.seqnum)
        self.due.append(RetSubmit(message.seqnum, status, actual, body))

    @precondition(lambda self: self.flight)
    @rule(data=st.data())
    def unlink_in_time(self, data: st.DataObject) -> None:
        message = self.pick(data)
        urb = self.device.held[message.seqnum]
        unlink = Unlink(self.number(), self.devid, message.seqnum)
        self.sock.sendall(self.importer.send(unlink))
        self.device.wait(lambda: urb in self.device.cancelled)
        assert not urb.complete(bytes(8)), "it was unlinked"
        del self.flight[message.seqnum]
        self.due.append(RetUnlink(unlink.seqnum, UNLINKED))

    @precondition(lambda self: self.ended)
    @rule(data=st.data())
    def unlink_too_late(self, data: st.DataObject) -> None:
        unlink = Unlink(self.number(), self.devid, data.draw(st.sampled_from(self.ended)))
        self.sock.sendall(self.importer.send(unlink))
        self.due.append(RetUnlink(unlink.seqnum, 0))
        self.drain()

    @precondition(lambda self: self.flight)
    @rule(data=st.data())
    def unlink_while_it_completes(self, data: st.DataObject) -> None:
        message = self.pick(data)
        self.drain()
        urb = self.device.held[message.seqnum]
        body = b"" if message.direction is OUT else bytes(message.length)
        unlink = Unlink(self.number(), self.devid, message.seqnum)
        wire = self.importer.send(unlink)
        start = threading.Barrier(2)
        in_time: list[bool] = []

        def end() -> None:
            start.wait(DEADLINE)
            in_time.append(urb.complete(body))

        other = threading.Thread(target=end)
        other.start()
        start.wait(DEADLINE)
        self.sock.sendall(wire)
        other.join(DEADLINE)
        if in_time[0]:
            # Not kept in ``ended``: what is drawn later must not depend on who was faster.
            self.due.append(RetSubmit(message.seqnum, 0, message.length, body))
        self.due.append(RetUnlink(unlink.seqnum, 0 if in_time[0] else UNLINKED))
        self.drain()
        if in_time[0]:
            assert urb not in self.device.cancelled, "it had ended"
            self.device.held.pop(message.seqnum)
        else:
            self.device.wait(lambda: urb in self.device.cancelled)
        del self.flight[message.seqnum]

    @rule()
    def read(self) -> None:
        self.drain()

    @rule(busid=st.sampled_from([BUSID, "9-9"]))
    def another_importer_asks(self, busid: str) -> None:
        other = ImporterConnection()
        with self.connect() as sock:
            for request, wanted in (
                (ReqDevlist(), RepDevlist),
                (ReqImport(busid), RepImport),
            ):
                sock.sendall(other.send(request))
                events: list[object] = []
                while not events:
                    events += other.advance(sock.recv_into(other.buffer()))
                assert isinstance(events[0], wanted)
        assert events == [RepImport(None, OpStatus.DEV_BUSY if busid == BUSID else OpStatus.NODEV)]
        assert other.state is State.OPEN

    @rule(way=st.sampled_from(["close", "half", "device"]))
    def disconnect(self, way: str) -> None:
        if way == "half":
            # Half a request, and then the end.
            self.sock.sendall(self.make(2, OUT, 64).pack()[:70])
        if way == "device" and self.flight:
            next(iter(self.device.held.values())).disconnect()
            self.hear_the_end()
        else:
            self.sock.close()
        self.gone()
        self.attach()

    @precondition(lambda self: self.flight)
    @rule(data=st.data(), fault=st.sampled_from(["seqnum", "devid", "command"]))
    def nonsense(self, data: st.DataObject, fault: str) -> None:
        """The connection ends, and nothing but the connection."""
        message = self.pick(data)
        wire = {
            "seqnum": Submit(message.seqnum, self.devid, IN, 1, 8).pack(),
            "devid": Submit(self.number(), self.devid + 1, IN, 1, 8).pack(),
            "command": b"\0\0\0\x07" + bytes(44),
        }[fault]
        self.sock.sendall(wire)
        self.hear_the_end()
        self.gone()
        self.attach()

    @rule()
    def unplug(self) -> None:
        self.plugged.unplug()
        assert self.exporter.devices() == []
        self.hear_the_end()
        self.gone()
        self.plugged = self.exporter.plug(self.device, busid=BUSID)
        self.attach()

    # What always holds

    @invariant()
    def the_device_has_what_is_in_flight(self) -> None:
        with self.device.changed:
            assert set(self.device.held) == set(self.flight)
            assert self.device.left_over == 0, "released before its transfers were cancelled"
            ends = [id(urb) for urb in self.device.cancelled]
        assert len(ends) == len(set(ends)), "cancelled twice"
        assert self.plugged.in_use

    def teardown(self) -> None:
        try:
            self.drain()
        finally:
            self.exporter.close()
        self.gone()
        assert self.exporter.connections == 0


ExporterMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestExporter = ExporterMachine.TestCase
