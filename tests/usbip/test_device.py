"""Virtual devices, asked through a real exporter's transfers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.errors import NotThere
from pytest_hil.usbip.descriptors import DeviceDescriptor, parse_configuration, parse_string
from pytest_hil.usbip.device import (
    DeclarationError,
    Interface,
    Setup,
    Stall,
    VirtualDevice,
    request,
)
from pytest_hil.usbip.messages import (
    NO_ENDPOINT,
    SHUTDOWN,
    STALL,
    Direction,
    IsoPacket,
    Speed,
)
from pytest_hil.usbip.urb import TransferType

if TYPE_CHECKING:
    from tests.usbip.conftest import Asker

    Ask = Callable[[VirtualDevice], Asker]


class Thermometer(VirtualDevice):
    vendor_id, product_id = 0x1209, 0x0010
    product = "Thermometer"
    serial_number = "T1"
    main = Interface(0xFF)
    command = main.bulk_out(1)
    reply = main.bulk_in(1)
    alarm = main.interrupt_in(2, max_packet=8, interval_ms=10)

    degrees = b"21.5"

    @command.received
    def on_command(self, data: bytes) -> None:
        if data == b"bad":
            raise Stall
        if data == b"worse":
            raise ValueError("a bug of its author's")
        self.reply.offer(self.degrees)

    @request(0xC0, 1)
    def read_degrees(self, setup: Setup) -> bytes:
        return self.degrees

    @request(0x40, 1)
    def write_degrees(self, setup: Setup, data: bytes) -> None:
        self.degrees = data


def test_descriptors(ask: Ask) -> None:
    asker = ask(Thermometer())
    status, data, actual = asker.control(0x80, 6, 0x0100, data=18)
    assert (status, actual) == (0, 18)
    found = DeviceDescriptor.parse(data)
    assert (found.vendor_id, found.product_id, found.usb) == (0x1209, 0x0010, 0x0200)
    names = [asker.control(0x80, 6, 0x0300 | n, 0x0409, 255)[1] for n in (1, 2, 3)]
    assert [parse_string(name) for name in names] == ["pytest-hil", "Thermometer", "T1"]
    assert asker.control(0x80, 6, 0x0304, 0x0409, 255)[0] == STALL
    short = asker.control(0x80, 6, 0x0200, data=9)[1]
    whole = asker.control(0x80, 6, 0x0200, data=255)[1]
    assert len(short) == 9
    assert short == whole[:9]
    configuration = parse_configuration(whole)
    assert configuration.pack() == whole
    (only,) = configuration.interfaces
    assert [(one.address, one.max_packet) for one in only.endpoints] == [
        (0x01, 512),
        (0x81, 512),
        (0x82, 8),
    ]
    assert only.endpoints[2].interval == 7  # 2^6 microframes: 8 ms, the next below 10


def test_nothing_is_there_before_it_is_configured(ask: Ask) -> None:
    asker = ask(Thermometer())
    urb = asker.submit(0x01, data=b"?")
    assert asker.ended[urb.seqnum][0] == NO_ENDPOINT
    assert asker.control(0x80, 8, data=1)[1] == b"\0"
    asker.configure()
    assert asker.control(0x80, 8, data=1)[1] == b"\1"
    asker.device.wait_configured(0)


def test_a_question_and_its_answer(ask: Ask) -> None:
    asker = ask(Thermometer())
    asker.configure()
    waiting = asker.submit(0x81, length=64)
    assert waiting.seqnum not in asker.ended
    asked = asker.submit(0x01, data=b"?")
    assert asker.ended[asked.seqnum] == (0, b"", 1)
    assert asker.ended[waiting.seqnum] == (0, b"21.5", 4)


def test_a_long_message_goes_on_in_the_next_transfer(ask: Ask) -> None:
    device = Thermometer()
    asker = ask(device)
    asker.configure()
    device.reply.send(b"abcdef")
    device.reply.send(b"")
    got = [asker.ended[asker.submit(0x81, length=4).seqnum] for _ in range(3)]
    assert got == [(0, b"abcd", 4), (0, b"ef", 2), (0, b"", 0)]


def test_vendor_requests(ask: Ask) -> None:
    asker = ask(Thermometer())
    assert asker.control(0x40, 1, data=b"19.0") == (0, b"", 4)
    assert asker.control(0xC0, 1) == (0, b"19.0", 4)
    assert asker.control(0xC0, 1, data=2) == (0, b"19", 2)
    assert asker.control(0xC0, 2)[0] == STALL


def test_a_handler_says_no(ask: Ask) -> None:
    asker = ask(Thermometer())
    asker.configure()
    urb = asker.submit(0x01, data=b"bad")
    assert asker.ended[urb.seqnum][0] == STALL
    asker.device.check()


def test_a_handler_has_a_bug(ask: Ask) -> None:
    asker = ask(Thermometer())
    asker.configure()
    with pytest.raises(ValueError, match="a bug of its author's"):
        asker.submit(0x01, data=b"worse")
    assert next(iter(reversed(asker.ended.values())))[0] == STALL
    with pytest.raises(ValueError, match="a bug of its author's"):
        asker.device.check()


def test_halt_and_clear(ask: Ask) -> None:
    device = Thermometer()
    asker = ask(device)
    asker.configure()
    waiting = asker.submit(0x81, length=4)
    device.reply.halt()
    assert asker.ended[waiting.seqnum][0] == STALL
    assert asker.control(0x82, 0, index=0x81, data=2)[1] == b"\1\0"
    assert asker.ended[asker.submit(0x81, length=4).seqnum][0] == STALL
    assert asker.control(0x02, 1, index=0x81, data=0)[0] == 0
    device.reply.send(b"on")
    assert asker.ended[asker.submit(0x81, length=4).seqnum] == (0, b"on", 2)


def test_what_waits_ends_with_the_configuration(ask: Ask) -> None:
    asker = ask(Thermometer())
    asker.configure()
    waiting = asker.submit(0x81, length=4)
    asker.control(0, 9, 0, data=0)
    assert asker.ended[waiting.seqnum][0] == SHUTDOWN


def test_what_was_cancelled_is_not_completed(ask: Ask) -> None:
    device = Thermometer()
    asker = ask(device)
    asker.configure()
    gone, stays = asker.submit(0x81, length=4), asker.submit(0x81, length=4)
    device.cancel(gone)
    device.reply.send(b"x")
    assert gone.seqnum not in asker.ended
    assert asker.ended[stays.seqnum] == (0, b"x", 1)


def test_nobody_polls() -> None:
    device = Thermometer()
    for _ in range(64):
        device.alarm.send(b"!")
    with pytest.raises(NotThere, match=r"nobody polls <InPipe alarm INTERRUPT>: 64 messages"):
        device.alarm.send(b"!", timeout=0.01)
    assert not device.alarm.offer(b"!")
    with pytest.raises(NotThere, match="is the device attached"):
        device.alarm.wait_sent(0.01)


class Streams(VirtualDevice):
    main = Interface(0xFF)
    second = main.alternate()
    to = second.iso_out(3, max_packet=64, interval_ms=0.125)
    back = second.iso_in(3, max_packet=64, interval_ms=0.125)

    @to.received
    def on_packet(self, data: bytes) -> None:
        self.back.offer(data[::-1])


def test_isochronous_packets_of_an_alternate_setting(ask: Ask) -> None:
    device = Streams()
    asker = ask(device)
    asker.configure()
    assert device.transfer_type(3, Direction.IN) is None
    assert asker.control(1, 11, 1, 0, data=0)[0] == 0
    assert asker.control(0x81, 10, 0, 0, data=1)[1] == b"\1"
    assert device.transfer_type(3, Direction.IN) is TransferType.ISO
    packets = (IsoPacket(0, 3), IsoPacket(3, 2))
    out = asker.submit(0x03, data=b"abcde", iso=packets)
    space = (IsoPacket(0, 8), IsoPacket(8, 8), IsoPacket(16, 8))
    back = asker.submit(0x83, length=24, iso=space)
    with device.changed:
        assert device.changed.wait_for(lambda: back.seqnum in asker.ended, 10)
    assert asker.ended[out.seqnum] == (0, b"", 5)
    assert asker.ended[back.seqnum] == (0, b"cbaed", 5)
    assert [one.actual for one in asker.iso[back.seqnum]] == [3, 2, 0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"speed": Speed.WIRELESS}, r"Wrong\.speed: .*allowed: LOW, FULL, HIGH, SUPER"),
        ({"vendor_id": 0x12345}, r"Wrong\.vendor_id: 0x12345 does not fit into 16 bits"),
        ({"product": "x" * 127}, r"Wrong\.product: 127 characters; .* room for 126"),
        ({"max_power_ma": 600}, r"Wrong\.max_power_ma: 600; 0 to 500"),
    ],
)
def test_wrong_facts(body: dict[str, Any], message: str) -> None:
    with pytest.raises(DeclarationError, match=message):
        type("Wrong", (VirtualDevice,), {"main": Interface(), **body})


def test_wrong_endpoints() -> None:
    main, other = Interface(), Interface()
    body: dict[str, Any] = {"main": main, "other": other}
    body |= {"a": main.bulk_in(1), "b": other.bulk_in(1)}
    with pytest.raises(
        DeclarationError, match=r"Wrong\.b: endpoint 1 IN is a of another interface"
    ):
        type("Wrong", (VirtualDevice,), body)
    main = Interface()
    body = {"main": main, "c": main.bulk_in(1), "d": main.bulk_in(1)}
    with pytest.raises(DeclarationError, match=r"Wrong\.d: endpoint 1 IN is c already"):
        type("Wrong", (VirtualDevice,), body)
    main = Interface()
    body = {"main": main, "e": main.bulk_out(1, max_packet=64)}
    with pytest.raises(DeclarationError, match=r"e: max_packet is 64; .* at HIGH speed has 512"):
        type("Wrong", (VirtualDevice,), body)
    main = Interface()
    body = {"speed": Speed.LOW, "main": main, "f": main.bulk_in(1)}
    with pytest.raises(DeclarationError, match=r"f: a device of LOW speed has no bulk endpoints"):
        type("Wrong", (VirtualDevice,), body)


def _with_only(number: int) -> Interface:
    found = Interface()
    found.bulk_in(number)
    return found


def test_an_endpoint_that_cannot_be() -> None:
    with pytest.raises(DeclarationError, match=r"the endpoint's number is 16; 1 to 15"):
        type("Wrong", (VirtualDevice,), {"main": _with_only(16)})


def test_a_handler_is_overridden_like_any_method(ask: Ask) -> None:
    class Celsius(Thermometer):
        def on_command(self, data: bytes) -> None:
            self.reply.offer(b"celsius")

    asker = ask(Celsius())
    asker.configure()
    waiting = asker.submit(0x81, length=64)
    asker.submit(0x01, data=b"?")
    assert asker.ended[waiting.seqnum] == (0, b"celsius", 7)


def test_reading_without_a_handler(ask: Ask) -> None:
    class Sink(VirtualDevice):
        main = Interface()
        to = main.bulk_out(1)

    device = Sink()
    asker = ask(device)
    asker.configure()
    urbs = [asker.submit(0x01, data=bytes([n])) for n in range(70)]
    assert sum(urb.seqnum in asker.ended for urb in urbs) == 64, "the rest waits for the reader"
    assert [device.to.read() for _ in range(70)] == [bytes([n]) for n in range(70)]
    assert all(asker.ended[urb.seqnum][0] == 0 for urb in urbs)
    with pytest.raises(NotThere, match="nothing came"):
        device.to.read(timeout=0.01)
