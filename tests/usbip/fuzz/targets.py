"""What the fuzzer runs: both parsers and a live exporter. Each raises when something is wrong.

An input's first byte says where the conversation stands (and with STUFFED that many zeros come
behind the first header), the second how its bytes are cut; the rest is what comes over the wire.
Malformed is the right answer to nonsense; anything else raised is not.
"""

from __future__ import annotations

import itertools
import logging
import socket
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

from pytest_hil.usbip.connection import ExporterConnection, ImporterConnection, State
from pytest_hil.usbip.exporter import Exporter, Limits
from pytest_hil.usbip.messages import (
    URB_SIZE,
    Device,
    Direction,
    Interface,
    IsoPacket,
    Malformed,
    OpStatus,
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetSubmit,
    Submit,
    Unlink,
)
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback

Target = Callable[[bytes], None]

KiB = 2**10
IN, OUT = Direction.IN, Direction.OUT
DEVICE = Device("1-1", 1, 2, 3, 0x1209, 1, interfaces=(Interface(255, 0, 0),))
ISO_ENDPOINT = 3
# More of them find nothing else, and take their time.
MOST_CUTS = 40
ABSENT_ENDPOINT = 15
# Seconds in which a live exporter has answered everything, on a host that is busy otherwise.
PATIENCE = 30.0


ATTACHED = 0x80
STUFFED = 0x40
# Longer than what a connection keeps in its small buffer. Not in the inputs themselves: those stay
# short, so that a change hits something that matters.
STUFFING = 17_000


def wire_of(data: bytes) -> bytes:
    """What comes over the wire."""
    wire = data[2:]
    if data[:1] and data[0] & STUFFED:
        return wire[:URB_SIZE] + bytes(STUFFING) + wire[URB_SIZE:]
    return wire


def pieces(wire: bytes, size: int) -> Iterable[bytes]:
    """The whole for 0, else a few pieces of so many bytes, and the rest."""
    cuts = range(size, min(len(wire), size * MOST_CUTS), size) if size else ()
    return (wire[at:to] for at, to in itertools.pairwise((0, *cuts, len(wire))))


Heard = tuple[list[object], str]
"""The messages, and the fault that ended them."""


def hear(
    side: ExporterConnection | ImporterConnection,
    wire: bytes,
    size: int,
    answer: Callable[[object], None],
) -> Heard:
    """What a connection makes of bytes that come in pieces."""
    heard: list[object] = []
    try:
        for piece in pieces(wire, size):
            rest = memoryview(piece)
            while rest and side.state is not State.DEAD:
                place = side.buffer()
                assert len(place), "no place for what comes"
                count = min(len(place), len(rest))
                place[:count] = rest[:count]
                rest = rest[count:]
                side.received(count)
                for event in side.events():
                    heard.append(event)
                    answer(event)
        side.eof()
    except Malformed as error:
        assert side.state is State.DEAD
        assert side.next_event() is None
        assert not side.partial
        return heard, error.fault.value
    return heard, ""


def same(one: Heard, other: Heard) -> None:
    """However its bytes are cut, a conversation is the same."""
    assert one == other, f"whole: {one}\ncut: {other}"


def exporter_parser(data: bytes) -> None:
    """What an importer may send."""

    def once(size: int) -> Heard:
        side = ExporterConnection(_is_iso)

        def answer(event: object) -> None:
            if isinstance(event, ReqDevlist):
                side.send(RepDevlist((DEVICE,)))
            elif isinstance(event, ReqImport):
                known = event.busid == DEVICE.busid
                side.send(RepImport(DEVICE if known else None, OpStatus.OK))
            elif isinstance(event, Submit):
                assert len(event.data) == (0 if event.direction else event.length)

        if data[0] & ATTACHED:
            side.feed(ReqImport(DEVICE.busid).pack())
            side.send(RepImport(DEVICE))
        return hear(side, wire_of(data), size, answer)

    if len(data) > 2:
        same(once(0), once(data[1] or 1))


def _is_iso(endpoint: int, direction: Direction) -> bool | None:
    return None if endpoint == ABSENT_ENDPOINT else endpoint == ISO_ENDPOINT


def in_flight() -> Iterable[Submit | Unlink]:
    """What an importer waits for when replies are fuzzed: one of each kind, numbers from 1."""
    iso = tuple(IsoPacket(at * 8, 8) for at in range(4))
    ways = (IN, OUT)
    for number, way in enumerate(ways, 1):
        yield Submit(number, DEVICE.devid, way, 1, 64, data=b"" if way else bytes(64))
    for number, way in enumerate(ways, 3):
        data = b"" if way else bytes(32)
        yield Submit(number, DEVICE.devid, way, ISO_ENDPOINT, 32, data=data, iso=iso)
    yield Submit(5, DEVICE.devid, IN, 1, 100 * KiB)
    for number in range(6, 10):
        yield Unlink(number, DEVICE.devid, number - 5)


def importer_parser(data: bytes) -> None:
    """What an exporter may reply."""

    def once(size: int) -> Heard:
        side = ImporterConnection()
        where = data[0] % 4
        if where == 1:
            side.send(ReqDevlist())
        elif where:
            side.send(ReqImport(DEVICE.busid))
        if where == 3:
            side.feed(RepImport(DEVICE).pack())
            for message in in_flight():
                side.send(message)
        heard = hear(side, wire_of(data), size, lambda _event: None)
        assert len(side.in_flight) <= 5
        return heard

    if len(data) > 2:
        same(once(0), once(data[1] or 1))


class LiveExporter:
    """An exporter with devices: bytes go in through a socket, and then all is as it was before."""

    EVERY = 256
    """Between two proper conversations, to see that it still serves."""

    def __init__(self) -> None:
        limits = Limits(transfer=64 * KiB, in_flight_bytes=512 * KiB, unsent=256 * KiB)
        self._wrong: list[str] = []
        self._log = _Kept(self._wrong)
        logging.getLogger("asyncio").addHandler(self._log)
        self._exporter = Exporter(port=None, limits=limits, events=self._event)
        self._plugged = [
            self._exporter.plug(device)
            for device in (Loopback(), Keyboard(), SerialPort(), MassStorage(64 * KiB))
        ]
        self._runs = itertools.count(1)
        self._threads = set(threading.enumerate())
        self._descriptors = _descriptors()

    def __call__(self, data: bytes) -> None:
        ours, theirs = socket.socketpair()
        with ours:
            ours.settimeout(PATIENCE)
            self._exporter.adopt(theirs)
            wire = wire_of(data)
            if data[:1] and data[0] & ATTACHED:
                wire = ReqImport(DEVICE.busid).pack() + wire
            try:
                for piece in pieces(wire, data[1] * 16 if len(data) > 1 else 0):
                    ours.sendall(piece)
                ours.shutdown(socket.SHUT_WR)
                while ours.recv(64 * KiB):
                    pass
            except (BrokenPipeError, ConnectionResetError):
                pass  # it hung up on nonsense while more of it came
        self._check()
        if next(self._runs) % self.EVERY == 0:
            self._converse()

    def _check(self) -> None:
        assert not self._wrong, "\n".join(self._wrong)
        # The socket is closed after everything was given back.
        assert not any(one.in_use for one in self._plugged), "a device was not given back"
        assert self._exporter.connections == 0

    def _converse(self) -> None:
        """A proper importer's: it gets the device, and the device's descriptor."""
        ours, theirs = socket.socketpair()
        side = ImporterConnection()
        with ours:
            ours.settimeout(PATIENCE)
            self._exporter.adopt(theirs)

            def ask(request: ReqImport | Submit) -> object:
                ours.sendall(side.send(request))
                while True:
                    count = ours.recv_into(side.buffer())
                    assert count, "the exporter hung up on a proper importer"
                    if events := side.advance(count):
                        return events[0]

            imported = ask(ReqImport("1-1"))
            assert isinstance(imported, RepImport)
            assert imported.device is not None
            setup = bytes.fromhex("8006000100001200")
            reply = ask(Submit(1, imported.device.devid, IN, 0, 18, setup=setup))
            assert isinstance(reply, RetSubmit)
            assert reply.actual == 18
        self._plugged[0].wait_released(PATIENCE)
        self._quiet()

    def _quiet(self) -> None:
        """Threads and descriptors are as many as before."""
        ours, theirs = socket.socketpair()
        with ours:
            # Its end says that the loop has done what came before.
            ours.settimeout(PATIENCE)
            self._exporter.adopt(theirs)
            ours.shutdown(socket.SHUT_WR)
            assert ours.recv(1) == b""
        for thread in set(threading.enumerate()) - self._threads:
            # A device's scheduler has a thread while something is due: nothing is any more.
            thread.join(PATIENCE)
            assert not thread.is_alive(), f"{thread.name} was left behind"
        left = _descriptors()
        assert len(left) == len(self._descriptors), f"descriptors were left behind: {left}"

    def _event(self, _kind: str, **facts: object) -> None:
        if facts["what"] == "device-error":
            self._wrong.append(str(facts["traceback"]))

    def close(self) -> None:
        self._exporter.close()
        logging.getLogger("asyncio").removeHandler(self._log)


def _descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


class _Kept(logging.Handler):
    """What asyncio says about protocols that raise."""

    def __init__(self, kept: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self._kept.append(logging.Formatter().format(record))
