"""Human interface devices: a keyboard, a mouse, and any other. HID 1.11."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from typing import ClassVar

from pytest_hil.errors import NotThere
from pytest_hil.usbip.descriptors import Kind
from pytest_hil.usbip.device import DeclarationError, Interface, Setup, VirtualDevice, request
from pytest_hil.usbip.virtual import keymap

# The largest report that the endpoint's packets carry here.
MAX_REPORT = 64

# Report descriptors, a line for each field, in items of HID 1.11, 6.2.2; usages of the HID Usage
# Tables 1.4.
KEYBOARD_REPORT = bytes.fromhex(
    "0501 0906 a101"  # generic desktop, keyboard: an application
    "0507 19e0 29e7 1500 2501 7501 9508 8102"  # eight modifiers
    "9501 7508 8101"  # a reserved byte
    "9505 7501 0508 1901 2905 9102"  # five LEDs
    "9501 7503 9101"  # and three bits to fill their byte
    "9506 7508 1500 26ff00 0507 1900 2aff00 8100"  # six keys
    "c0"
)
MOUSE_REPORT = bytes.fromhex(
    "0501 0902 a101 0901 a100"  # generic desktop, mouse: an application; a pointer
    "0509 1901 2905 1500 2501 9505 7501 8102"  # five buttons
    "9501 7503 8101"  # and three bits to fill their byte
    "0501 0930 0931 1601f8 26ff07 7510 9502 8106"  # x and y, -2047 to 2047, relative
    "0938 1581 257f 7508 9501 8106"  # the wheel
    "c0 c0"
)

GET_REPORT, GET_IDLE, GET_PROTOCOL = 0x01, 0x02, 0x03
SET_REPORT, SET_IDLE, SET_PROTOCOL = 0x09, 0x0A, 0x0B


def hid_descriptor(report: bytes) -> bytes:
    """The nine bytes that name a report descriptor (HID 1.11, 6.2.1): country none."""
    return struct.pack("<BBHBBBH", 9, Kind.HID, 0x0111, 0, 1, Kind.REPORT, len(report))


def check_report_descriptor(data: bytes) -> None:
    """Raises DeclarationError for items that do not end where the bytes do, or do not nest."""
    at = depth = 0
    while at < len(data):
        prefix = data[at]
        if prefix == 0xFE:  # a long item: size, tag, data
            size = 2 + data[at + 1] if at + 1 < len(data) else len(data)
        else:
            size = (0, 1, 2, 4)[prefix & 3]
        if at + 1 + size > len(data):
            raise DeclarationError(f"report descriptor: the item at byte {at} has no end")
        if prefix & 0xFC == 0xA0:
            depth += 1
        elif prefix & 0xFC == 0xC0:
            depth -= 1
        if depth < 0:
            raise DeclarationError(f"report descriptor: byte {at} ends a collection too many")
        at += 1 + size
    if depth or not data:
        raise DeclarationError(f"report descriptor: {depth} collections have no end")


class GenericHid(VirtualDevice):
    """A HID by its report descriptor: ``class Pedal(GenericHid): report_descriptor = bytes(…)``.

    ``on_output`` may be overridden: it gets what the guest sets (LEDs, output and feature reports).
    """

    product_id = 0x0002
    product = "HID"
    report_descriptor: ClassVar[bytes] = b""
    main = Interface(0x03)
    reports = main.interrupt_in(1, max_packet=MAX_REPORT, interval_ms=4)

    def __init_subclass__(cls, **options: object) -> None:
        if cls.report_descriptor:
            check_report_descriptor(cls.report_descriptor)
            inherited = cls.main
            if "main" not in vars(cls):
                # The descriptor is the class's own, and so is the interface that tells of it.
                cls.main = Interface(
                    inherited.interface_class,
                    inherited.subclass,
                    inherited.protocol,
                )
                cls.reports = cls.main.interrupt_in(1, max_packet=MAX_REPORT, interval_ms=4)
                cls.main.__set_name__(cls, "main")
                cls.reports.__set_name__(cls, "reports")
            cls.main.extra = hid_descriptor(cls.report_descriptor)
        super().__init_subclass__(**options)

    def __init__(self) -> None:
        if not self.report_descriptor:
            raise DeclarationError(f"{type(self).__name__} has no report_descriptor")
        super().__init__()
        self._last: dict[int, bytes] = {}
        self._idle = 0
        self._protocol = 1
        self.on_output: Callable[[int, bytes], None] = lambda _kind, _data: None

    def send_report(self, report: bytes, *, timeout: float = 10.0) -> None:
        """One input report. Raises NotThere when nobody polls for ``timeout`` seconds."""
        self.reports.send(report, timeout=timeout)
        self._last[1] = bytes(report)

    def descriptor(self, kind: int, index: int, interface: int) -> bytes | None:
        if kind == Kind.REPORT:
            return self.report_descriptor
        return hid_descriptor(self.report_descriptor) if kind == Kind.HID else None

    @request(0xA1, GET_REPORT)
    def get_report(self, setup: Setup) -> bytes:
        return self._last.get(setup.value >> 8, bytes(setup.length))

    @request(0x21, SET_REPORT)
    def set_report(self, setup: Setup, data: bytes) -> None:
        self._last[setup.value >> 8] = data
        self.output(setup.value >> 8, data)

    @request(0xA1, GET_IDLE)
    def get_idle(self, setup: Setup) -> bytes:
        return bytes([self._idle])

    @request(0x21, SET_IDLE)
    def set_idle(self, setup: Setup, data: bytes) -> None:
        self._idle = setup.value >> 8

    @request(0xA1, GET_PROTOCOL)
    def get_protocol(self, setup: Setup) -> bytes:
        return bytes([self._protocol])

    @request(0x21, SET_PROTOCOL)
    def set_protocol(self, setup: Setup, data: bytes) -> None:
        self._protocol = setup.value & 1

    def output(self, kind: int, data: bytes) -> None:
        """The guest set a report: ``kind`` is 2 for output, 3 for feature."""
        self.on_output(kind, data)


class Keyboard(GenericHid):
    """A US keyboard with 105 keys, six at once."""

    product = "Keyboard"
    report_descriptor = KEYBOARD_REPORT
    main = Interface(0x03, 1, 1)  # boot, keyboard
    reports = main.interrupt_in(1, max_packet=8, interval_ms=4)

    def __init__(self) -> None:
        super().__init__()
        self._held: list[int] = []
        self._modifiers = 0
        self._leds = 0
        self._typing = threading.Lock()

    def type(self, text: str, *, timeout: float = 10.0) -> None:
        """Type a text; returns when the guest has taken all of it.

        Raises ValueError for a character that no key makes, NotThere when nobody polls.
        """
        unknown = sorted(set(text) - set(keymap.CHARACTERS))
        if unknown:
            raise ValueError(f"no key of a US keyboard makes {''.join(unknown)!r}")
        with self._typing:
            for character in text:
                modifiers, key = keymap.CHARACTERS[character]
                self._report(self._modifiers | modifiers, [*self._held, key], timeout)
                self._report(self._modifiers, self._held, timeout)
            self.reports.wait_sent(timeout)

    def tap(self, keys: str, *, timeout: float = 10.0) -> None:
        """Press and release a chord: ``tap("ctrl+alt+delete")``."""
        self.press(keys, timeout=timeout)
        self.release(keys, timeout=timeout)

    def press(self, keys: str, *, timeout: float = 10.0) -> None:
        """Hold keys down. Raises ValueError for a name that no key has."""
        modifiers, key = keymap.chord(keys)
        with self._typing:
            self._modifiers |= modifiers
            if key and key not in self._held:
                if len(self._held) == 6:
                    raise ValueError("a boot keyboard holds six keys")
                self._held.append(key)
            self._report(self._modifiers, self._held, timeout)
            self.reports.wait_sent(timeout)

    def release(self, keys: str = "", *, timeout: float = 10.0) -> None:
        """Let keys go; all of them if none is named."""
        modifiers, key = keymap.chord(keys) if keys else (0xFF, 0)
        with self._typing:
            self._modifiers &= ~modifiers
            self._held = [held for held in self._held if keys and held != key]
            self._report(self._modifiers, self._held, timeout)
            self.reports.wait_sent(timeout)

    def _report(self, modifiers: int, keys: list[int], timeout: float) -> None:
        self.send_report(bytes([modifiers, 0, *keys[:6]]).ljust(8, b"\0"), timeout=timeout)

    @property
    def leds(self) -> frozenset[str]:
        """Which LEDs the guest has lit: ``numlock``, ``capslock``, ``scrolllock`` …"""
        names = ("numlock", "capslock", "scrolllock", "compose", "kana")
        return frozenset(name for bit, name in enumerate(names) if self._leds >> bit & 1)

    def wait_led(self, name: str, on: bool = True, *, timeout: float = 10.0) -> None:
        """Until the guest lights (or darkens) one. Raises NotThere."""
        with self.changed:
            if not self.changed.wait_for(lambda: (name in self.leds) is on, timeout):
                state = ", ".join(sorted(self.leds)) or "none"
                raise NotThere(f"the LED {name} did not change within {timeout:g} s; lit: {state}")

    def output(self, kind: int, data: bytes) -> None:
        if kind == 2 and data:
            self._leds = data[0]
            self.changed.notify_all()
        super().output(kind, data)


class Mouse(GenericHid):
    """A mouse with five buttons and a wheel; moves by up to 2047 a report."""

    product = "Mouse"
    report_descriptor = MOUSE_REPORT
    main = Interface(0x03, 0, 2)
    reports = main.interrupt_in(1, max_packet=8, interval_ms=4)

    BUTTONS: ClassVar[dict[str, int]] = {
        "left": 1,
        "right": 2,
        "middle": 4,
        "back": 8,
        "forward": 16,
    }

    def __init__(self) -> None:
        super().__init__()
        self._buttons = 0

    def move(self, x: int, y: int, *, timeout: float = 10.0) -> None:
        """Move to the right and down, in counts; as many reports as it takes."""
        while x or y:
            dx, dy = (max(-2047, min(2047, way)) for way in (x, y))
            self._report(dx, dy, 0, timeout)
            x, y = x - dx, y - dy
        self.reports.wait_sent(timeout)

    def wheel(self, notches: int, *, timeout: float = 10.0) -> None:
        """Turn the wheel away from the user."""
        while notches:
            step = max(-127, min(127, notches))
            self._report(0, 0, step, timeout)
            notches -= step
        self.reports.wait_sent(timeout)

    def press(self, button: str = "left", *, timeout: float = 10.0) -> None:
        self._buttons |= self._button(button)
        self._report(0, 0, 0, timeout)
        self.reports.wait_sent(timeout)

    def release(self, button: str = "left", *, timeout: float = 10.0) -> None:
        self._buttons &= ~self._button(button)
        self._report(0, 0, 0, timeout)
        self.reports.wait_sent(timeout)

    def click(self, button: str = "left", *, timeout: float = 10.0) -> None:
        self.press(button, timeout=timeout)
        self.release(button, timeout=timeout)

    def _button(self, name: str) -> int:
        if name not in self.BUTTONS:
            raise ValueError(f"no button is named {name!r}; there are {', '.join(self.BUTTONS)}")
        return self.BUTTONS[name]

    def _report(self, x: int, y: int, wheel: int, timeout: float) -> None:
        self.send_report(struct.pack("<Bhhb", self._buttons, x, y, wheel), timeout=timeout)
