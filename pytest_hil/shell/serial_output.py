"""What a command has said, put together from the frames of a serial shell's script. No I/O.

See :mod:`pytest_hil.shell.serial_script` for the frames.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from dataclasses import dataclass

from pytest_hil.shell.cksum import cksum
from pytest_hil.shell.serial_frames import Frame

# Bytes in a line of base64, or of od without it.
_B64_LINE, _OD_LINE = 57, 16
_HEX = frozenset("0123456789abcdef ")


@dataclass(frozen=True, slots=True)
class Coding:
    """Which programs the target has: base64(1) or od(1), cksum(1) or md5sum(1)."""

    base64: bool = True
    md5: bool = False

    @classmethod
    def of(cls, frame: Frame) -> Coding:
        """As the script says it in its first frame."""
        return cls(frame.fields[:1] != ("od",), frame.fields[1:] == ("md5",))

    @property
    def per_line(self) -> int:
        return _B64_LINE if self.base64 else _OD_LINE

    def sum(self, data: bytes) -> str:
        if not data:
            return "0"
        if self.md5:
            return hashlib.md5(data, usedforsecurity=False).hexdigest()
        return str(cksum(data))

    def encoded(self, data: bytes) -> str:
        """For an upload: without base64, printf's octal."""
        if self.base64:
            return base64.b64encode(data).decode()
        return "".join(f"\\{byte:03o}" for byte in data)

    def decoded(self, text: str) -> bytes | None:
        """What a word or a line says; None if it is damaged."""
        if self.base64:
            try:
                return base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError):
                return None
        if not _HEX.issuperset(text):
            return None
        with contextlib.suppress(ValueError):
            return bytes.fromhex(text)
        return None


@dataclass(frozen=True, slots=True)
class Stream:
    """What one of the two streams said: its ``data``, or only their sum and size."""

    size: int
    sum: str = ""
    data: bytes | None = None


@dataclass(frozen=True, slots=True)
class End:
    """A command's end. ``code`` is as a shell says it: 128 + N for the signal N."""

    code: int
    out: Stream
    err: Stream


def parse_end(frame: Frame, coding: Coding) -> End | None:
    """None for a frame that does not make sense."""
    match frame.fields:
        case (_id, code, out, err) if code.isdigit():
            both = [_short(word, coding) for word in (out, err)]
        case (_id, code, *rest) if code.isdigit() and len(rest) == 4:
            both = [_long(*rest[:2]), _long(*rest[2:])]
        case _:
            return None
    one, other = both
    return None if one is None or other is None else End(int(code), one, other)


def _short(word: str, coding: Coding) -> Stream | None:
    data = coding.decoded(word[1:]) if word.startswith("-") else None
    return None if data is None else Stream(len(data), data=data)


def _long(right: str, size: str) -> Stream | None:
    if not size.isdigit():
        return None
    return Stream(int(size), right, None if int(size) else b"")


class Lines:
    """The numbered lines of the streams ``o`` and ``e``, as they come in."""

    def __init__(self) -> None:
        self._lines: dict[tuple[str, int], str] = {}

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, frame: Frame) -> None:
        name, number, *words = frame.fields
        if number.isdigit():
            self._lines[name, int(number)] = " ".join(words)

    def forget(self, name: str) -> None:
        self._lines = {key: line for key, line in self._lines.items() if key[0] != name}

    def missing(self, name: str, size: int, coding: Coding) -> list[tuple[int, int]]:
        """Ranges of a stream's lines that are not here, or not right."""
        found: list[tuple[int, int]] = []
        last = _count(size, coding)
        for number in range(1, last + 1):
            wanted = coding.per_line if number < last else size - (last - 1) * coding.per_line
            line = coding.decoded(self._lines.get((name, number), ""))
            if line is None or len(line) != wanted:
                if found and found[-1][1] == number - 1:
                    found[-1] = (found[-1][0], number)
                else:
                    found.append((number, number))
        return found

    def data(self, name: str, size: int, coding: Coding) -> bytes | None:
        """A stream, if all of its lines are here."""
        if self.missing(name, size, coding):
            return None
        numbers = range(1, _count(size, coding) + 1)
        return b"".join(coding.decoded(self._lines[name, number]) or b"" for number in numbers)


def _count(size: int, coding: Coding) -> int:
    return -(-size // coding.per_line)
