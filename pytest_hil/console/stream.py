"""A console's bytes → text for people and patterns, piece by piece, without I/O.

Three small machines in a row: UTF-8 decoding (errors replaced), removal of terminal
control sequences (ECMA-48, with xterm's OSC ended by BEL), and newlines. Each of them
gives the same text however its input is cut into pieces, and each holds back only what
the next byte may change: a started sequence, a started character, a carriage return.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

# Bounds: a sequence that is longer is none. Without them, a stray "ESC ]" of a crashing
# firmware would swallow everything that follows it.
_PARAMETERS: Final = 64
_INTERMEDIATES: Final = 8
_STRING: Final = 4096

# ECMA-48 5.4: CSI, parameter bytes 3/0–3/15, intermediate bytes 2/0–2/15, a final byte 4/0–7/14.
_CSI: Final = rf"\[[0-?]{{0,{_PARAMETERS}}}+[ -/]{{0,{_INTERMEDIATES}}}+"
# ECMA-48 5.6: OSC, DCS, SOS, PM and APC, up to ST (ESC \) or BEL. No newline: a real one has none.
_CONTROL_STRING: Final = rf"[\]PX^_][^\x07\x18\x1a\x1b\n]{{0,{_STRING}}}+"
# ECMA-35 13.2: all other escape sequences, with intermediate bytes or without.
_ESCAPE: Final = rf"[ -/]{{1,{_INTERMEDIATES}}}+"

_SEQUENCE: Final = re.compile(
    rf"\x1b(?:{_CSI}[@-~]|{_CONTROL_STRING}(?:\x07|\x1b\\)|{_ESCAPE}[0-~]|[0-OQ-WYZ\\`-~])?"
)
_STARTED: Final = re.compile(rf"\x1b(?:{_CSI}|{_CONTROL_STRING}\x1b?|{_ESCAPE})?\Z")
_LONGEST: Final = _STRING + 3


class AnsiStripper:
    """Removes control sequences from a text that comes in pieces.

    An ESC that begins no valid sequence is removed alone; what follows it is text.
    """

    def __init__(self) -> None:
        self._started = ""

    def feed(self, text: str) -> str:
        text = self._started + text
        self._started = ""
        if "\x1b" not in text:
            return text
        started = _STARTED.search(text, max(0, len(text) - _LONGEST))
        if started:
            self._started = started.group()
            text = text[: started.start()]
        return _SEQUENCE.sub("", text)

    def finish(self) -> str:
        """What a sequence that was started and never ended leaves behind."""
        started, self._started = self._started, ""
        return _SEQUENCE.sub("", started)


# How many carriage returns belong to one newline: a tty's "\r\n", and "\r\r\n" when a
# program writes "\r\n" to a tty that adds its own.
_RETURNS: Final = 2
_NEWLINE: Final = re.compile(rf"\r{{1,{_RETURNS}}}\n")


class Newlines:
    r"""Makes ``\n`` of ``\r\n`` and ``\r\r\n``; other carriage returns stay (progress bars)."""

    def __init__(self) -> None:
        self._returns = ""

    def feed(self, text: str) -> str:
        text = self._returns + text
        self._returns = ""
        if "\r" not in text:
            return text
        if text.endswith("\r"):
            kept = text[-_RETURNS:]
            self._returns = kept[len(kept.rstrip("\r")) :]
            text = text[: -len(self._returns)]
        if "\r\r\n" in text:
            return _NEWLINE.sub("\n", text)
        return text.replace("\r\n", "\n")

    def finish(self) -> str:
        returns, self._returns = self._returns, ""
        return returns


class TextStream:
    """Bytes in, clean text out."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._ansi = AnsiStripper()
        self._newlines = Newlines()

    def feed(self, data: bytes) -> str:
        return self._newlines.feed(self._ansi.feed(self._decoder.decode(data)))

    def finish(self) -> str:
        """The last text: what was held back. The stream starts anew after it."""
        last = self._ansi.feed(self._decoder.decode(b"", final=True)) + self._ansi.finish()
        return self._newlines.feed(last) + self._newlines.finish()


def clean(data: bytes) -> str:
    """The clean text of bytes that are all there."""
    stream = TextStream()
    return stream.feed(data) + stream.finish()


def split_utf8(data: bytes) -> tuple[bytes, bytes]:
    """The bytes up to the last whole character, and those (at most 3) of a started one."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        # Bytes that begin a character, by its length: C2–DF, E0–EF, F0–F4 (RFC 3629).
        length = 2 if byte <= 0xDF else 3 if byte <= 0xEF else 4
        if 0xC2 <= byte <= 0xF4 and back < length:
            return data[:-back], data[-back:]
        break
    return data, b""
