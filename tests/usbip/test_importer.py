"""Both ends together: our importer at our exporter, over TCP."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.errors import ChannelLost, ConfigError, InfrastructureError
from pytest_hil.usbip.exporter import Exporter, Limits
from pytest_hil.usbip.importer import Importer, Refused, list_devices
from pytest_hil.usbip.messages import (
    NO_ENDPOINT,
    SHORT,
    SHORT_NOT_OK,
    SHUTDOWN,
    STALL,
    TOO_LARGE,
    UNLINKED,
    Direction,
    IsoPacket,
    OpStatus,
    ReqImport,
    Submit,
)
from pytest_hil.usbip.urb import TransferType, Urb
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.vendor import Loopback


class Told:
    """The exporter's events."""

    def __init__(self) -> None:
        self.events: list[dict[str, object]] = []

    def __call__(self, kind: str, **facts: object) -> None:
        assert kind == "usb"
        self.events.append(facts)

    def what(self) -> list[object]:
        return [event["what"] for event in self.events]


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def exporter(told: Told) -> Iterator[Exporter]:
    threads = threading.active_count()
    with Exporter(events=told, limits=Limits(patience=0.5)) as found:
        yield found
    assert threading.active_count() <= threads


@pytest.fixture
def device(exporter: Exporter) -> Iterator[Importer]:
    exporter.plug(Loopback())
    with Importer(exporter.address, "1-1") as found:
        assert found.control(0, 9, 1).status == 0
        yield found


def test_a_list(exporter: Exporter) -> None:
    assert list_devices(exporter.address) == []
    exporter.plug(Keyboard())
    exporter.plug(Loopback(), busid="3-1.4")
    first, second = list_devices(exporter.address)
    assert (first.busid, first.vendor_id, first.product_id) == ("1-1", 0x1209, 2)
    assert [one.interface_class for one in first.interfaces] == [3]
    assert (second.busid, second.path) == ("3-1.4", "/pytest-hil/3-1.4")


def test_what_goes_out_comes_back(device: Importer) -> None:
    for size in (0, 1, 64, 512, 100_000):
        data = bytes(range(256)) * (size // 256) + bytes(size % 256)
        assert device.write(1, data).actual == size
        assert bytes(device.read(1, 2**17).data) == data
    assert device.read(9, 8).status == NO_ENDPOINT
    assert device.control(0xC0, 0x77, data=8).status == STALL
    assert device.control(0x80, 6, 0x0100, data=64).actual == 18


def test_isochronous(device: Importer) -> None:
    assert device.control(1, 11, 1).status == 0
    out = [IsoPacket(n * 10, 10) for n in range(5)]
    sent = device.submit(0x03, data=bytes(range(50)), iso=out).wait(10)
    assert (sent.status, sent.actual, [one.actual for one in sent.iso]) == (0, 50, [10] * 5)
    back = [IsoPacket(n * 192, 192) for n in range(8)]
    got = device.submit(0x83, length=8 * 192, iso=back).wait(10)
    assert bytes(got.data) == bytes(range(50))
    assert [one.actual for one in got.iso] == [10] * 5 + [0] * 3


def test_a_transfer_is_given_up(device: Importer) -> None:
    waiting = device.submit(0x81, length=64)
    assert waiting.cancel().status == UNLINKED
    with pytest.raises(TimeoutError):
        device.read(1, 64, timeout=0.05)
    device.write(1, b"later")
    assert bytes(device.read(1, 64).data) == b"later", "what was given up took nothing"


def test_giving_up_what_is_over(device: Importer) -> None:
    over = device.submit(0x84, length=8)
    over.wait(10)
    assert over.cancel().status == 0


def test_many_threads(device: Importer) -> None:
    def use(number: int) -> None:
        for _ in range(50):
            got = device.control(0x80, 6, 0x0100, data=18)
            assert got.actual == 18
            assert device.read(4, number + 1).actual == number + 1
        done.append(number)

    done: list[int] = []
    threads = [threading.Thread(target=use, args=(n,)) for n in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert sorted(done) == list(range(8))


def test_one_importer_a_device(exporter: Exporter, device: Importer) -> None:
    with pytest.raises(Refused, match="somebody else has it") as refused:
        Importer(exporter.address, "1-1")
    assert refused.value.status == OpStatus.DEV_BUSY
    with pytest.raises(Refused, match=r"(?s)exports no such device.*did you mean '1-1'"):
        Importer(exporter.address, "1-11")
    device.close()
    exporter.plug(Keyboard())
    with Importer(exporter.address, "1-1") as again:
        assert again.device.product_id == 1


def test_unplugged_in_use(exporter: Exporter, told: Told) -> None:
    plugged = exporter.plug(Loopback())
    with Importer(exporter.address, "1-1") as device:
        plugged.wait_imported(10)
        device.control(0, 9, 1)
        waiting = device.submit(0x81, length=8)
        plugged.unplug()
        with pytest.raises(ChannelLost, match=r"closed the connection|is gone"):
            waiting.wait(10)
        with pytest.raises(ChannelLost):
            device.read(1, 8)
    assert list_devices(exporter.address) == []
    assert {"plug", "import", "unplug", "released"} <= set(told.what())


def test_the_device_forgets_an_importer_that_dies(exporter: Exporter) -> None:
    plugged = exporter.plug(Loopback())
    device = Importer(exporter.address, "1-1")
    device.control(0, 9, 1)
    device.submit(0x81, length=8)
    device.close()
    plugged.wait_released(10)
    with Importer(exporter.address, "1-1") as again:
        assert again.control(0x80, 8, data=1).data == b"\0", "it begins unconfigured"
        again.control(0, 9, 1)
        again.write(1, b"x")
        assert bytes(again.read(1, 8).data) == b"x"


def test_too_much_at_once(exporter: Exporter) -> None:
    exporter.plug(Loopback())
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        assert device.read(4, 2**30).status == TOO_LARGE
        waiting = [device.submit(0x81, length=8) for _ in range(4096)]
        assert device.submit(0x81, length=8).wait(10).status == TOO_LARGE
        assert device.control(0x80, 6, 0x0100, data=18).status == TOO_LARGE
        waiting[0].cancel()
        assert device.control(0x80, 6, 0x0100, data=18).status == 0


@pytest.mark.parametrize(
    ("rubbish", "fault"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "version"),
        (bytes.fromhex("0111 8009 00000000"), "code"),
        (bytes.fromhex("0111 8003 00000000") + b"x" * 32, "busid"),
        (Submit(1, 0x10002, Direction.IN, 1, 8).pack(), "order"),
        (bytes.fromhex("0111"), "silence"),
        (b"", "silence"),
    ],
)
def test_nonsense_instead_of_a_request(
    exporter: Exporter, told: Told, rubbish: bytes, fault: str
) -> None:
    exporter.plug(Loopback())
    with socket.create_connection(exporter.address, 10) as sock:
        sock.sendall(rubbish)
        assert sock.recv(1) == b""
    assert [event.get("fault") for event in told.events if event["what"] == "malformed"] == [fault]
    assert len(list_devices(exporter.address)) == 1


@pytest.mark.parametrize(
    ("rubbish", "fault"),
    [
        (Submit(1, 7, Direction.IN, 1, 8).pack(), "devid"),
        (Submit(1, 0x10002, Direction.OUT, 1, 2**31 - 1).pack(), "length"),
        (Submit(1, 0x10002, Direction.OUT, 1, -5).pack(), "length"),
        (b"\xff" * 48, "command"),
        (Submit(1, 0x10002, Direction.OUT, 1, 2**20).pack() + b"half", "silence"),
        (
            Submit(1, 0x10002, Direction.IN, 0, 8, setup=b"\x80\x06\0\1\0\0\x08\0").pack()[:20],
            "silence",
        ),
    ],
)
def test_nonsense_after_the_import(
    exporter: Exporter, told: Told, rubbish: bytes, fault: str
) -> None:
    plugged = exporter.plug(Loopback())
    with socket.create_connection(exporter.address, 10) as sock:
        sock.sendall(ReqImport("1-1").pack())
        assert len(sock.recv(320, socket.MSG_WAITALL)) == 320
        sock.sendall(rubbish)
        assert sock.recv(1) == b""
    assert [event.get("fault") for event in told.events if event["what"] == "malformed"] == [fault]
    plugged.wait_released(10)
    with Importer(exporter.address, "1-1") as device:
        assert device.control(0x80, 6, 0x0100, data=18).status == 0


def test_a_device_that_raises(exporter: Exporter, told: Told) -> None:
    class Broken(Loopback):
        def on_sink(self, urb: object) -> None:
            raise ValueError("a bug of its author's")

    exporter.plug(Broken())
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        assert device.write(4, b"x").status == STALL
        assert device.control(0x80, 6, 0x0100, data=18).status == 0
    (event,) = (event for event in told.events if event["what"] == "device-error")
    assert "a bug of its author's" in str(event["error"])
    assert "on_sink" in str(event["traceback"])


def test_a_reply_is_as_long_as_it_says(exporter: Exporter) -> None:
    class Careless(Loopback):
        def on_source(self, urb: Urb) -> None:
            urb.complete(b"abcd", actual=2 if urb.length == 8 else 400)

    exporter.plug(Careless())
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        assert bytes(device.read(4, 8).data) == b"ab"
        assert bytes(device.read(4, 500).data) == b"abcd"
        assert device.control(0x80, 6, 0x0100, data=18).actual == 18


def test_short_is_an_error_where_the_importer_says_so(exporter: Exporter) -> None:
    exporter.plug(Loopback())
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        device.write(1, b"abc")
        ended = device.submit(0x81, length=8, flags=SHORT_NOT_OK).wait(10)
        assert (ended.status, bytes(ended.data)) == (SHORT, b"abc")


def test_a_device_that_does_not_know_its_endpoints(exporter: Exporter, told: Told) -> None:
    class Lost(Loopback):
        def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
            if endpoint == 9:
                raise ValueError("what is nine?")
            return super().transfer_type(endpoint, direction)

    plugged = exporter.plug(Lost())
    with Importer(exporter.address, "1-1") as device, pytest.raises(ChannelLost):
        device.read(9, 8)
    plugged.wait_released(10)
    (event,) = (event for event in told.events if event["what"] == "device-error")
    assert "what is nine?" in str(event["error"])


def test_a_socket_that_somebody_else_accepted(told: Told) -> None:
    with Exporter(port=None, events=told) as exporter:
        exporter.plug(Loopback(), importers=["guest"])
        for peer, count in (("guest", 1), ("other", 0)):
            ours, theirs = socket.socketpair()
            exporter.adopt(theirs, peer=peer)
            with ours:
                ours.sendall(bytes.fromhex("0111 8005 00000000"))
                head = ours.recv(12, socket.MSG_WAITALL)
                assert int.from_bytes(head[8:], "big") == count


def test_where_it_may_listen() -> None:
    with pytest.raises(ConfigError, match=r"(?s)everybody could use .*allow=\["):
        Exporter(host="0.0.0.0")
    with pytest.raises(ConfigError, match=r"'10\.0\.0\.0/99' is no address"):
        Exporter(host="0.0.0.0", allow=["10.0.0.0/99"])
    with Exporter() as exporter:
        with pytest.raises(InfrastructureError, match=r"(?s)cannot listen .*port 0"):
            Exporter(port=exporter.address[1])
        with pytest.raises(ConfigError, match="no bus id"):
            exporter.plug(Loopback(), busid="x" * 32)
        loop = Loopback()
        exporter.plug(loop, busid="7-1")
        with pytest.raises(ConfigError, match="7-1 is taken"):
            exporter.plug(Keyboard(), busid="7-1")
        with pytest.raises(ConfigError, match="is plugged in already"):
            exporter.plug(loop)


def test_who_may_come() -> None:
    with Exporter(allow=["192.0.2.0/24"]) as exporter, pytest.raises(ChannelLost):
        list_devices(exporter.address)


def test_an_exporter_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = silent.getsockname()
        with pytest.raises(ChannelLost, match=r"did not answer within 0\.05 s"):
            list_devices(address, timeout=0.05)
    with pytest.raises(ChannelLost, match="no exporter answers"):
        list_devices(address, timeout=1)


def test_closing_while_it_is_used(told: Told) -> None:
    exporter = Exporter(events=told)
    exporter.plug(Loopback())
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        waiting = device.submit(0x81, length=8)
        exporter.close()
        exporter.close()
        with pytest.raises(ChannelLost):
            waiting.wait(10)
    with pytest.raises(InfrastructureError, match="the exporter is closed"):
        exporter.plug(Keyboard())
    assert SHUTDOWN < 0


def test_a_batch_that_asks_for_far_more_than_it_reads(exporter: Exporter) -> None:
    exporter.plug(Loopback())
    with socket.create_connection(exporter.address, 10) as sock:
        sock.sendall(ReqImport("1-1").pack())
        assert len(sock.recv(320, socket.MSG_WAITALL)) == 320
        setup = b"\0\x09\1\0\0\0\0\0"
        sock.sendall(Submit(1, 0x10002, Direction.OUT, 0, 0, setup).pack())
        assert len(sock.recv(48, socket.MSG_WAITALL)) == 48
        before = resident()
        # In one piece, and each of them could be answered at once: 16 GB of replies.
        sock.sendall(
            b"".join(Submit(n, 0x10002, Direction.IN, 4, 2**24).pack() for n in range(2, 1000))
        )
        with sock.makefile("rb") as replies:
            assert len(replies.read(2**20)) == 2**20
        assert resident() - before < 256 * 2**20


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
