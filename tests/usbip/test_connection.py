"""Both roles without a socket: what is sent is heard, however it is cut; nonsense is one error."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.usbip.connection import ExporterConnection, ImporterConnection, State
from pytest_hil.usbip.messages import (
    MAX_TRANSFER,
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
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
)

ISO_ENDPOINT = 3
DEVICE = Device("1-1", 1, 2, 3, 0x1209, 1)

IN, OUT = Direction.IN, Direction.OUT


def is_iso(endpoint: int, direction: Direction) -> bool | None:
    return None if endpoint == 15 else endpoint == ISO_ENDPOINT


def attached() -> tuple[ExporterConnection, ImporterConnection]:
    """Both sides, after an import."""
    exporter, importer = ExporterConnection(is_iso), ImporterConnection()
    assert exporter.feed(importer.send(ReqImport("1-1"))) == [ReqImport("1-1")]
    assert importer.feed(exporter.send(RepImport(DEVICE))) == [RepImport(DEVICE)]
    assert exporter.state is importer.state is State.ATTACHED
    return exporter, importer


def cut(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    parts, at = [], 0
    for size in sizes:
        parts.append(data[at : at + size])
        at += size
    return [*parts, data[at:]]


def plain(message: Submit | Unlink | RetSubmit | RetUnlink) -> object:
    """Comparable: data may be of any kind of bytes."""
    kept = [getattr(message, name) for name in type(message).__slots__]
    return [bytes(one) if isinstance(one, bytes | bytearray | memoryview) else one for one in kept]


@st.composite
def submits(draw: st.DrawFn, seqnum: int) -> Submit:
    way = draw(st.sampled_from(Direction))
    endpoint = draw(st.sampled_from([0, 1, ISO_ENDPOINT, 14]))
    if endpoint == ISO_ENDPOINT:
        lengths = draw(st.lists(st.integers(0, 40), min_size=1, max_size=5))
        iso: tuple[IsoPacket, ...] = tuple(
            IsoPacket(sum(lengths[:n]), length) for n, length in enumerate(lengths)
        )
        data = bytes(n % 251 for n in range(sum(lengths)))
        packets = len(iso)
    else:
        big = draw(st.sampled_from([1, 1, 1, 60_000]))
        data = draw(st.binary(max_size=64)) * big
        iso, packets = (), draw(st.sampled_from([0, -1, 77]))
    body: Bytes = data if way is OUT else b""
    length = len(data)
    return Submit(seqnum, DEVICE.devid, way, endpoint, length, data=body, packets=packets, iso=iso)


@given(st.data(), st.lists(st.integers(1, 5000), max_size=20))
def test_transfers_arrive_however_they_are_cut(data: st.DataObject, sizes: list[int]) -> None:
    exporter, importer = attached()
    sent = [data.draw(submits(number)) for number in range(1, 6)]
    wire = b"".join(importer.send(one) for one in sent)
    heard = [event for part in cut(wire, sizes) for event in exporter.feed(part)]
    for one, other in zip(heard, sent, strict=True):
        assert isinstance(one, Submit)
        # The number of packets of what is not isochronous means nothing.
        assert bytes(one.data) == bytes(other.data)
        assert (one.seqnum, one.length, one.iso) == (other.seqnum, other.length, other.iso)
    assert not exporter.partial
    replies = []
    for one in sent:
        iso = tuple(IsoPacket(p.offset, p.length, p.length) for p in one.iso)
        body = bytes(one.length) if one.direction is IN else b""
        replies.append(RetSubmit(one.seqnum, 0, one.length, body, iso=iso, packets=len(iso)))
    wire = b"".join(exporter.send(one) for one in replies)
    back = [event for part in cut(wire, sizes) for event in importer.feed(part)]
    assert [plain(one) for one in back if isinstance(one, RetSubmit)] == [plain(r) for r in replies]
    assert importer.in_flight == {}


@given(st.lists(st.integers(1, 700), max_size=8), st.integers(0, 3))
def test_lists_arrive_however_they_are_cut(sizes: list[int], count: int) -> None:
    exporter, importer = ExporterConnection(is_iso), ImporterConnection()
    exporter.feed(importer.send(ReqDevlist()))
    wire = exporter.send(RepDevlist((DEVICE,) * 0))
    assert importer.feed(wire) == [RepDevlist(())]
    exporter.feed(importer.send(ReqDevlist()))
    one = Device("1-1", 1, 2, 3, 4, 5, interface_count=0)
    wire = exporter.send(RepDevlist((one,) * count))
    heard = [event for part in cut(wire, sizes) for event in importer.feed(part)]
    assert heard == [RepDevlist((one,) * count)]


@given(st.lists(st.binary(max_size=200)), st.booleans())
def test_any_bytes_are_messages_or_one_error(parts: list[bytes], imported: bool) -> None:
    for side in attached() if imported else (ExporterConnection(is_iso), ImporterConnection()):
        try:
            for part in parts:
                side.feed(part)
            side.eof()
        except Malformed:
            assert side.state is State.DEAD
            assert side.next_event() is None
            assert not side.partial


HEAD = Submit(1, DEVICE.devid, OUT, 1, 4).pack()


@pytest.mark.parametrize(
    ("wire", "fault"),
    [
        (Submit(1, 99, IN, 1, 4).pack(), Fault.DEVID),
        (Unlink(1, 99, 1).pack(), Fault.DEVID),
        (Submit(1, DEVICE.devid, OUT, 1, MAX_TRANSFER + 1).pack(), Fault.LENGTH),
        (Submit(1, DEVICE.devid, IN, ISO_ENDPOINT, 4, packets=-2).pack(), Fault.PACKETS),
        (Submit(1, DEVICE.devid, IN, ISO_ENDPOINT, 4, packets=1025).pack(), Fault.PACKETS),
        (Submit(1, DEVICE.devid, IN, ISO_ENDPOINT, 4, iso=(IsoPacket(0, 5),)).pack(), Fault.PACKET),
        (ReqImport("1-1").pack().ljust(48, b"\0"), Fault.ORDER),
        (b"\0\0\0\x09" + HEAD[4:], Fault.COMMAND),
        (b"\0\0\0\x03" + HEAD[4:], Fault.COMMAND),
    ],
)
def test_what_an_exporter_does_not_take(wire: bytes, fault: Fault) -> None:
    exporter, _importer = attached()
    with pytest.raises(Malformed) as caught:
        exporter.feed(wire)
    assert caught.value.fault is fault


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (RetSubmit(7), Fault.SEQNUM),
        (RetUnlink(7), Fault.SEQNUM),
        (RetSubmit(1, 0, 9, bytes(9)), Fault.ACTUAL),
        (RetSubmit(1, 0, -1), Fault.ACTUAL),
        (RetSubmit(1, 5), Fault.STATUS),
        (RetSubmit(2, 0, 4, bytes(4), packets=1, iso=(IsoPacket(0, 4, 3),)), Fault.ACTUAL),
        (RetSubmit(2, 0, 4, bytes(4), packets=2), Fault.PACKETS),
    ],
)
def test_what_an_importer_does_not_take(reply: RetSubmit | RetUnlink, fault: Fault) -> None:
    _exporter, importer = attached()
    importer.send(Submit(1, DEVICE.devid, IN, 1, 8))
    importer.send(Submit(2, DEVICE.devid, IN, ISO_ENDPOINT, 4, iso=(IsoPacket(0, 4),)))
    with pytest.raises(Malformed) as caught:
        importer.feed(reply.pack())
    assert caught.value.fault is fault


def test_the_order_of_things() -> None:
    exporter, importer = ExporterConnection(is_iso), ImporterConnection()
    with pytest.raises(Malformed, match="order Submit"):
        importer.send(Submit(1, 0, IN, 1, 4))
    with pytest.raises(Malformed, match="order RepImport"):
        exporter.send(RepImport(DEVICE))
    exporter.feed(importer.send(ReqImport("1-9")))
    assert importer.feed(exporter.send(RepImport(None, OpStatus.NODEV))) == [
        RepImport(None, OpStatus.NODEV)
    ]
    assert exporter.state is importer.state is State.OPEN, "it may ask again"
    exporter.feed(importer.send(ReqImport("1-1")))
    with pytest.raises(Malformed) as caught:
        importer.feed(exporter.send(RepImport(Device("1-2", 1, 2, 3, 4, 5))))
    assert caught.value.fault is Fault.BUSID


def test_the_end_in_the_middle() -> None:
    exporter, _importer = attached()
    exporter.feed(HEAD)
    with pytest.raises(Malformed) as caught:
        exporter.eof()
    assert caught.value.fault is Fault.CUT


def test_a_claim_costs_nothing_until_it_is_kept() -> None:
    exporter, _importer = attached()
    tracemalloc.start()
    try:
        exporter.feed(Submit(1, DEVICE.devid, OUT, 1, MAX_TRANSFER).pack())
        exporter.feed(bytes(1000))
        _now, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    with pytest.raises(Malformed) as caught:
        attached()[0].feed(Submit(1, DEVICE.devid, OUT, 1, 2**31 - 1).pack())
    assert caught.value.fault is Fault.LENGTH
