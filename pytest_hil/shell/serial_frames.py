"""Frames among whatever else a console says. Bytes in, frames out; no I/O.

A frame is ``@NONCE LENGTH KIND FIELD… ~ KIND FIELD… .`` on a line, all of it twice and how long it
is (of a row of equal letters each copy may lose one), or a line of data, ``@NONCE D FIELD… .``,
whose sum somebody else looks at. The kernel writes its messages onto the same line, in the middle
of a frame if it must; each of them begins with ``[`` and a time and ends with a newline, and no
frame has a bracket, so they are taken out. What is damaged in another way is no frame, and is asked
for again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# printk's time, and who printed it, where the kernel says that (CONFIG_PRINTK_CALLER).
_KERNEL = re.compile(rb"\[ *[0-9]+\.[0-9]{6}\](?:\[ *[TC][0-9]+\])? [^\n]*\n")

# More than any frame: what grows beyond it has lost its end.
_LONGEST = 8192


@dataclass(frozen=True, slots=True)
class Frame:
    """``kind`` is a letter, ``fields`` what follows it."""

    kind: str
    fields: tuple[str, ...]


class Frames:
    """Finds the frames of one nonce. ``damaged`` counts what began as one and was none."""

    def __init__(self, nonce: str) -> None:
        self._start = b"@" + nonce.encode() + b" "
        self._rest = b""
        self.damaged = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete with these bytes."""
        self._rest = _KERNEL.sub(b"", self._rest + data.replace(b"\r", b""))
        *lines, rest = self._rest.split(b"\n")
        # A message of the kernel's that has not ended yet stays, and what it has cut with it.
        self._rest = rest[-_LONGEST:]
        return [frame for line in lines if (frame := self._parse(line)) is not None]

    def _parse(self, line: bytes) -> Frame | None:
        start = line.rfind(self._start)
        if start < 0:
            return None
        *words, stop = line[start + len(self._start) :].split(b" ")
        if b"~" in words:
            half = words.index(b"~")
            size, once, again = words[:1], words[1:half], words[half + 1 :]
            good = once == again and size == [b"%d" % len(b" ".join(once))]
            words = once
        else:
            good = words[:1] == [b"D"]
        if not good or stop != b"." or not words or len(words[0]) != 1 or b"" in words:
            self.damaged += 1
            return None
        try:
            return Frame(words[0].decode("ascii"), tuple(one.decode("ascii") for one in words[1:]))
        except UnicodeDecodeError:
            self.damaged += 1
            return None
