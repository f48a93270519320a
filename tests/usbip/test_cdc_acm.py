"""The serial adapter, as a host's driver uses it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import NotThere
from pytest_hil.usbip.descriptors import parse_configuration
from pytest_hil.usbip.device import DeclarationError, VirtualDevice
from pytest_hil.usbip.messages import Direction
from pytest_hil.usbip.urb import TransferType
from pytest_hil.usbip.virtual.cdc_acm import LineCoding, SerialPort
from pytest_hil.usbip.virtual.composite import Composite
from pytest_hil.usbip.virtual.hid import Keyboard, Mouse
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback

if TYPE_CHECKING:
    from tests.usbip.conftest import Asker

    Ask = Callable[[VirtualDevice], Asker]


@pytest.fixture
def port() -> SerialPort:
    return SerialPort(timeout=10)


@pytest.fixture
def asker(ask: Ask, port: SerialPort) -> Asker:
    found = ask(port)
    found.configure()
    return found


def test_lines_from_the_guest(asker: Asker, port: SerialPort) -> None:
    asker.submit(0x02, data=b"one\ntwo\nth")
    assert port.in_waiting == 10
    assert port.readline() == b"one\n"
    assert port.read(2) == b"tw"
    asker.submit(0x02, data=b"ree\n")
    assert port.read_until(b"ree") == b"o\nthree"
    port.timeout = 0
    assert port.read(10) == b"\n"
    assert port.read(10) == b""


def test_a_reader_who_is_slow_holds_the_guest_back(asker: Asker, port: SerialPort) -> None:
    sent = [asker.submit(0x02, data=bytes([n]) * 2**19) for n in range(4)]
    assert [urb.seqnum in asker.ended for urb in sent] == [True, True, False, False]
    asker.device.cancel(sent[3])
    assert port.read(2**19) == bytes(2**19)
    assert sent[2].seqnum in asker.ended
    assert port.read(2**20) == b"\1" * 2**19 + b"\2" * 2**19
    assert sent[3].seqnum not in asker.ended


def test_reading_more_than_the_buffer_holds(asker: Asker, port: SerialPort) -> None:
    for number in range(6):
        asker.submit(0x02, data=bytes([number]) * 2**19)
    assert port.read(3 * 2**20) == b"".join(bytes([number]) * 2**19 for number in range(6))


def test_to_the_guest(asker: Asker, port: SerialPort) -> None:
    early = asker.submit(0x82, length=4)
    assert port.write(b"abcdef") == 6
    assert asker.ended[early.seqnum][1] == b"abcd"
    assert asker.ended[asker.submit(0x82, length=4).seqnum][1] == b"ef"
    port.flush()
    port.timeout = 0.01
    port.write(b"x")
    with pytest.raises(NotThere, match="nobody polled"):
        port.flush()
    port.reset_output_buffer()
    port.flush()


def test_the_line(asker: Asker, port: SerialPort) -> None:
    coding = LineCoding(115200, 7, "E", 2)
    assert asker.control(0x21, 0x20, data=coding.pack())[0] == 0
    assert port.line_coding == coding
    assert asker.control(0xA1, 0x21, data=7)[1] == coding.pack()
    assert asker.control(0x21, 0x22, 3, data=0)[0] == 0
    assert (port.dtr, port.rts) == (True, True)
    port.wait_open(0)
    asker.control(0x21, 0x23, 0xFFFF, data=0)
    asker.control(0x21, 0x23, 0, data=0)
    assert port.breaks == 1
    waiting = asker.submit(0x81, length=16)
    port.set_state(dcd=True)
    assert asker.ended[waiting.seqnum][1] == struct.pack("<BBHHHH", 0xA1, 0x20, 0, 0, 2, 1)


def test_a_composite_of_three(ask: Ask) -> None:
    keyboard, port, mouse = Keyboard(), SerialPort(), Mouse()
    both = Composite(keyboard, port, mouse, product="Desk")
    asker = ask(both)
    asker.configure()
    assert keyboard.configured
    whole = asker.control(0x80, 6, 0x0200, data=1024)[1]
    found = parse_configuration(whole)
    assert found.numbers == [0, 1, 2, 3]
    addresses = [one.address for interface in found.interfaces for one in interface.endpoints]
    assert len(set(addresses)) == len(addresses) == 5
    (association,) = found.associations
    assert (association.first, association.count) == (1, 2)
    union = found.interfaces[1].extra[-5:]
    assert list(union) == [5, 0x24, 6, 1, 2], "it names the interfaces by their new numbers"
    # The keyboard's report descriptor, and the serial port's line, by their new numbers.
    assert asker.control(0x81, 6, 0x2200, 0, 255)[1] == Keyboard.report_descriptor
    assert asker.control(0x81, 6, 0x2200, 3, 255)[1] == Mouse.report_descriptor
    assert asker.control(0x21, 0x22, 1, 1, data=b"")[0] == 0
    assert port.dtr
    to = next(one for one in addresses if not one & 0x80)
    asker.submit(to, data=b"hello\n")
    assert port.readline() == b"hello\n"
    waiting = asker.submit(0x81, length=8)
    keyboard.reports.send(b"12345678")
    assert asker.ended[waiting.seqnum][1] == b"12345678"
    assert both.transfer_type(1, Direction.IN) is TransferType.INTERRUPT
    asker.device.released()
    assert not keyboard.configured


def test_a_loopback_in_a_composite(ask: Ask) -> None:
    both = Composite(SerialPort(), Loopback())
    asker = ask(both)
    asker.configure()
    main = next(one for one in both.configuration.interfaces if one.interface_class == 0xFF)
    out, back = main.endpoints[:2]
    asker.submit(out.address, data=b"round")
    assert asker.ended[asker.submit(back.address, length=64).seqnum][1] == b"round"


def test_parts_that_do_not_fit() -> None:
    with pytest.raises(
        DeclarationError, match="different speeds: Keyboard HIGH, MassStorage SUPER"
    ):
        Composite(Keyboard(), MassStorage(2**20))
    with pytest.raises(DeclarationError, match="Keyboard finds no endpoint free"):
        Composite(*(Keyboard() for _ in range(16)))
    with pytest.raises(DeclarationError, match="it has no parts"):
        Composite()
