"""The end of a console with its times, for a page: never more of it than was asked for."""

from __future__ import annotations

import base64
import binascii
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pytest_hil.artifacts.report.gather import moment, parse
from pytest_hil.console.stream import TextStream, clean
from pytest_hil.errors import visible

LONGEST_LINE: Final = 2000
# The first line of each part of a console.jsonl begins so (pytest_hil.console.transcript).
_PART: Final = b'{"t": 0.0, "wall": '


@dataclass(slots=True)
class Tail:
    """Lines and when they began, in milliseconds since ``start``; None where no time is known.

    ``size`` is that of the whole console in bytes, ``cut`` how many of them, about, are not here.
    ``inherited``: so many of the lines, from the first, were said by the machine's template.
    """

    lines: list[str] = field(default_factory=list)
    times: list[int] | None = field(default_factory=list)
    size: int = 0
    cut: int = 0
    inherited: int = 0


def tail(directory: Path, *, limit: int, start: float) -> Tail | None:
    """The last ``limit`` bytes or so of a console; None if there is none.

    ``start``: the moment (seconds since 1970) from which times are counted.
    """
    log = directory / "console.log"
    try:
        size = log.stat().st_size
    except OSError:
        return None
    found = _timed(directory / "console.jsonl", limit, start, size)
    if found is None or (not found.lines and size):
        found = _untimed(log, limit, size)
    return found


def _timed(path: Path, limit: int, start: float, size: int) -> Tail | None:
    """From console.jsonl; None if there is nothing usable in the part that was read."""
    made = _Lines(start)
    used = 0
    try:
        for entry in _entries(path, 2 * limit):
            used += made.add(entry)
    except OSError:
        return None
    made.end()
    if not used:
        return None
    tail = Tail(made.lines, made.times, size, max(0, size - used), made.inherited)
    return _shortened(tail, limit)


def _entries(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """The whole lines in the last ``limit`` bytes, after the first line of the part they are of."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        at = max(0, size - limit)
        if at:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as whole:
                begin = whole.rfind(b"\n" + _PART, 0, at) + 1
                line = whole[begin : begin + 4096].partition(b"\n")[0]
            if line.startswith(_PART) and (entry := parse(line)) is not None:
                yield entry
        file.seek(at)
        data = file.read(limit)
    if at:
        data = data.partition(b"\n")[2]
    for line in data.splitlines():
        if (entry := parse(line)) is not None:
            yield entry


class _Lines:
    """Puts lines together from pieces that begin and end anywhere."""

    def __init__(self, start: float) -> None:
        self.lines: list[str] = []
        self.times: list[int] = []
        self.inherited = 0
        self._start = start
        self._base = 0.0
        self._stream = TextStream()
        self._begun = ""
        self._begun_at: int | None = None
        self._fresh = False

    def add(self, entry: dict[str, Any]) -> int:
        """Take a line of console.jsonl; how many bytes of the console it stands for."""
        t = entry.get("t")
        seconds = float(t) if isinstance(t, int | float) else 0.0
        if isinstance(wall := entry.get("wall"), str):
            self._base = (moment(wall) or self._start) - self._start
        data = _data(entry)
        if not data:
            return 0
        if not entry.get("inherited") and not self._fresh:
            self._fresh = True
            self.inherited = len(self.lines)
        at = round((self._base + seconds) * 1000)
        self._text(self._stream.feed(data), at)
        return len(data)

    def _text(self, text: str, at: int) -> None:
        if not text:
            return
        if self._begun_at is None:
            self._begun_at = at
        first, *others = text.split("\n")
        # A line without an end must not be copied again with each piece of it.
        if len(self._begun) <= LONGEST_LINE:
            self._begun += first
        for other in others:
            self._line(at)
            self._begun, self._begun_at = other, at
        if not self._begun:
            self._begun_at = None

    def _line(self, at: int) -> None:
        line = self._begun
        if len(line) > LONGEST_LINE:
            line = f"{line[:LONGEST_LINE]} …"
        self.lines.append(visible(line))
        self.times.append(at if self._begun_at is None else self._begun_at)

    def end(self) -> None:
        self._text(self._stream.finish(), self._begun_at or 0)
        if self._begun:
            self._line(self._begun_at or 0)
        if not self._fresh:
            self.inherited = len(self.lines)


def _data(entry: dict[str, Any]) -> bytes:
    text, coded = entry.get("data"), entry.get("base64")
    if isinstance(text, str):
        return text.encode(errors="replace")
    if isinstance(coded, str):
        try:
            return base64.b64decode(coded)
        except (binascii.Error, ValueError):
            return b""
    return b""


def _shortened(tail: Tail, limit: int) -> Tail:
    """Without the first lines, as far as that is more than the limit."""
    room = limit
    keep = len(tail.lines)
    while keep and room > 0:
        keep -= 1
        room -= len(tail.lines[keep]) + 1
    tail.cut += sum(len(line) + 1 for line in tail.lines[:keep])
    tail.cut = min(tail.cut, tail.size)
    tail.lines = tail.lines[keep:]
    if tail.times is not None:
        tail.times = tail.times[keep:]
    tail.inherited = max(0, tail.inherited - keep)
    return tail


def _untimed(log: Path, limit: int, size: int) -> Tail | None:
    """From console.log, where console.jsonl is missing or damaged."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, size - limit))
            data = file.read(limit)
    except OSError:
        return None
    lines = visible(clean(data)).split("\n")
    lines = [
        f"{one[:LONGEST_LINE]} …" if len(one) > LONGEST_LINE else one
        for one in (lines if lines[-1] else lines[:-1])
    ]
    return Tail(lines, None, size, max(0, size - limit))
