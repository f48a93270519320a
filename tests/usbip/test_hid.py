"""Keyboards and mice, as a host's driver polls them."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import NotThere
from pytest_hil.usbip.descriptors import parse_configuration
from pytest_hil.usbip.device import DeclarationError, VirtualDevice
from pytest_hil.usbip.virtual import keymap
from pytest_hil.usbip.virtual.hid import GenericHid, Keyboard, Mouse

if TYPE_CHECKING:
    from tests.usbip.conftest import Asker

    Ask = Callable[[VirtualDevice], Asker]


@contextmanager
def polled(asker: Asker, length: int = 8) -> Iterator[list[bytes]]:
    """Somebody polls endpoint 0x81 for ever, as a driver does; what it got."""
    got: list[bytes] = []
    over = threading.Event()

    def ended(number: int) -> bool:
        return number in asker.ended or over.is_set()

    def poll() -> None:
        while not over.is_set():
            number = asker.submit(0x81, length=length).seqnum
            with asker.device.changed:
                asker.device.changed.wait_for(partial(ended, number), 10)
            if number in asker.ended:
                got.append(asker.ended[number][1])

    driver = threading.Thread(target=poll)
    driver.start()
    try:
        yield got
    finally:
        over.set()
        with asker.device.changed:
            asker.device.changed.notify_all()
        driver.join()


def test_typing(ask: Ask) -> None:
    keyboard = Keyboard()
    asker = ask(keyboard)
    asker.configure()
    with polled(asker) as got:
        keyboard.type("aB1!\n")
    text = [(report[0], report[2]) for report in got if report[2]]
    assert text == [(0, 0x04), (2, 0x05), (0, 0x1E), (2, 0x1E), (0, 0x28)]
    assert [report for report in got if not report[2]] == [bytes(8)] * 5, "each key is let go"


def test_every_character_is_another_key() -> None:
    made = list(keymap.CHARACTERS.values())
    assert len(set(made)) == len(made)
    printable = {chr(code) for code in range(0x20, 0x7F)}
    assert printable <= set(keymap.CHARACTERS)


def test_a_chord(ask: Ask) -> None:
    keyboard = Keyboard()
    asker = ask(keyboard)
    asker.configure()
    with polled(asker) as got:
        keyboard.tap("ctrl+alt+delete")
        keyboard.press("shift")
        keyboard.type("a")
        keyboard.release()
    assert got[:2] == [bytes([5, 0, 0x4C, 0, 0, 0, 0, 0]), bytes(8)]
    assert got[2][0] == got[3][0] == 2
    assert got[3][2] == 0x04
    assert got[-1] == bytes(8)


def test_characters_and_keys_that_are_not_there() -> None:
    keyboard = Keyboard()
    with pytest.raises(ValueError, match="no key of a US keyboard makes 'äö'"):
        keyboard.type("aäö")
    with pytest.raises(ValueError, match="no key is named 'entr': did you mean 'enter'"):
        keyboard.tap("ctrl+entr")


def test_nobody_polls_the_keyboard() -> None:
    with pytest.raises(NotThere, match=r"(?s)nobody polled .*is the device attached"):
        Keyboard().type("a", timeout=0.01)


def test_leds(ask: Ask) -> None:
    keyboard = Keyboard()
    asker = ask(keyboard)
    asker.configure()
    assert asker.control(0x21, 0x09, 0x0200, data=b"\x02")[0] == 0
    keyboard.wait_led("capslock", timeout=0)
    assert keyboard.leds == {"capslock"}
    with pytest.raises(NotThere, match=r"the LED numlock did not change .*lit: capslock"):
        keyboard.wait_led("numlock", timeout=0)


def test_the_mouse(ask: Ask) -> None:
    mouse = Mouse()
    asker = ask(mouse)
    asker.configure()
    with polled(asker) as got:
        mouse.move(3000, -5)
        mouse.click("right")
        mouse.wheel(-2)
    reports = [struct.unpack("<Bhhb", report) for report in got]
    assert reports[:2] == [(0, 2047, -5, 0), (0, 953, 0, 0)]
    assert reports[2:] == [(2, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, -2)]
    with pytest.raises(ValueError, match="no button is named 'thumb'"):
        mouse.click("thumb")


def test_what_a_driver_asks_first(ask: Ask) -> None:
    asker = ask(Keyboard())
    asker.configure()
    configuration = parse_configuration(asker.control(0x80, 6, 0x0200, data=255)[1])
    (interface,) = configuration.interfaces
    assert (interface.interface_class, interface.subclass, interface.protocol) == (3, 1, 1)
    length = int.from_bytes(interface.extra[7:9], "little")
    report = asker.control(0x81, 6, 0x2200, data=255)[1]
    assert report == Keyboard.report_descriptor
    assert len(report) == length
    assert asker.control(0x21, 0x0A, data=0)[0] == 0
    assert asker.control(0x21, 0x0B, 0, data=0)[0] == 0
    assert asker.control(0xA1, 0x03, data=1)[1] == b"\0"


def test_a_hid_of_ones_own(ask: Ask) -> None:
    class Pedal(GenericHid):
        product = "Pedal"
        report_descriptor = bytes.fromhex("05010902a101 050919012901150025017501950181 02 c0")

    pedal = Pedal()
    asker = ask(pedal)
    asker.configure()
    assert len(pedal.configuration.interfaces) == 1
    waiting = asker.submit(0x81, length=8)
    pedal.send_report(b"\1")
    assert asker.ended[waiting.seqnum][1] == b"\1"


@pytest.mark.parametrize(
    ("descriptor", "message"),
    [
        ("0501", "0 collections|no report"),
        ("a101", "1 collections have no end"),
        ("c0", "byte 0 ends a collection too many"),
        ("a101c027", "the item at byte 3 has no end"),
    ],
)
def test_report_descriptors_that_do_not_hold_together(descriptor: str, message: str) -> None:
    body = {"report_descriptor": bytes.fromhex(descriptor)}
    if descriptor == "0501":
        type("Fine", (GenericHid,), body)
        return
    with pytest.raises(DeclarationError, match=message):
        type("Wrong", (GenericHid,), body)
