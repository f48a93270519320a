"""Which keys of a US keyboard make which characters. HID Usage Tables 1.4, chapter 10."""

from __future__ import annotations

import string

# Bits of a boot report's first byte (HID 1.11, 8.3).
MODIFIERS = {
    "ctrl": 0x01,
    "shift": 0x02,
    "alt": 0x04,
    "meta": 0x08,
    "right-ctrl": 0x10,
    "right-shift": 0x20,
    "altgr": 0x40,
    "right-meta": 0x80,
}

_SHIFT = MODIFIERS["shift"]

KEYS: dict[str, int] = {
    **{letter: 0x04 + number for number, letter in enumerate(string.ascii_lowercase)},
    **{digit: 0x1E + number for number, digit in enumerate("1234567890")},
    **{f"f{number}": 0x39 + number for number in range(1, 13)},
    **{f"f{number}": 0x5B + number for number in range(13, 25)},
    "enter": 0x28,
    "escape": 0x29,
    "backspace": 0x2A,
    "tab": 0x2B,
    "space": 0x2C,
    "capslock": 0x39,
    "printscreen": 0x46,
    "scrolllock": 0x47,
    "pause": 0x48,
    "insert": 0x49,
    "home": 0x4A,
    "pageup": 0x4B,
    "delete": 0x4C,
    "end": 0x4D,
    "pagedown": 0x4E,
    "right": 0x4F,
    "left": 0x50,
    "down": 0x51,
    "up": 0x52,
    "numlock": 0x53,
    "menu": 0x65,
}

_PLAIN = dict(zip("-=[]\\;'`,./", (0x2D, 0x2E, 0x2F, 0x30, 0x31, *range(0x33, 0x39)), strict=True))
_SHIFTED = dict(zip("!@#$%^&*()", "1234567890", strict=True))
_SHIFTED_PLAIN = dict(zip('_+{}|:"~<>?', "-=[]\\;'`,./", strict=True))

# Character → (modifiers, key).
CHARACTERS: dict[str, tuple[int, int]] = {
    **{letter: (0, KEYS[letter]) for letter in string.ascii_lowercase},
    **{letter.upper(): (_SHIFT, KEYS[letter]) for letter in string.ascii_lowercase},
    **{digit: (0, KEYS[digit]) for digit in string.digits},
    **{character: (0, key) for character, key in _PLAIN.items()},
    **{character: (_SHIFT, KEYS[digit]) for character, digit in _SHIFTED.items()},
    **{character: (_SHIFT, _PLAIN[plain]) for character, plain in _SHIFTED_PLAIN.items()},
    " ": (0, KEYS["space"]),
    "\n": (0, KEYS["enter"]),
    "\t": (0, KEYS["tab"]),
    "\b": (0, KEYS["backspace"]),
    "\x1b": (0, KEYS["escape"]),
}


def chord(text: str) -> tuple[int, int]:
    """(modifiers, key) of ``ctrl+alt+delete``; key 0 if only modifiers are named.

    Raises ValueError that names the nearest right name.
    """
    modifiers = key = 0
    *held, last = text.split("+") if text != "+" else ["="]
    for name in [*held, last]:
        word = name.strip().lower()
        if word in MODIFIERS:
            modifiers |= MODIFIERS[word]
        elif name is last and word in KEYS:
            key = KEYS[word]
        elif name is last and name in CHARACTERS:
            shift, key = CHARACTERS[name]
            modifiers |= shift
        else:
            from pytest_hil.errors import nearest

            hint = nearest(word, {*KEYS, *MODIFIERS})
            raise ValueError(f"no key is named {name!r}: {hint}")
    if text == "+":
        modifiers |= _SHIFT
    return modifiers, key
