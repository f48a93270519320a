"""All that the page shows of one test when it is opened, as plain values for JSON."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pytest_hil.artifacts.report.capture import MOST_RECORDS, summary
from pytest_hil.artifacts.report.console import Tail, tail
from pytest_hil.artifacts.report.gather import Crash, Test, bounded_lines, parse

KiB = 1024

# Bytes of a console that are in the page itself, by whether the test went wrong.
CONSOLE_OF_BAD: Final = 128 * KiB
CONSOLE_OF_OTHERS: Final = 4 * KiB
_MOST_EVENTS: Final = 300
_FIRST_EVENTS: Final = 50
_EVENT_BYTES: Final = 256 * KiB
_LONGEST_VALUE: Final = 500
_MOST_FILES: Final = 200


class Details:
    """Makes them, one test after the other, within a budget for the whole page.

    ``room``: bytes of consoles that may come into the page; when it is used up, each test keeps
    only as much as one that passed.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._records = 10 * MOST_RECORDS

    def of(self, test: Test) -> dict[str, Any]:
        """Of one test; keys that would be empty are left out."""
        found: dict[str, Any] = {"text": test.text}
        tails = []
        if test.path is not None:
            events, left_out = _events(test.path / "events.jsonl")
            tails = self._consoles(test, test.path)
            found |= {
                "consoles": [_console(label, one) for label, one in tails],
                "events": events,
                "events_left_out": left_out,
                "usb": self._usb(test.path / "usb.pcap"),
                "files": _files(test.path),
            }
        found["crashes"] = [
            {**asdict(crash), "t": _when(crash, [one for _, one in tails])}
            for crash in test.crashes
        ]
        return {key: value for key, value in found.items() if value}

    def _consoles(self, test: Test, path: Path) -> list[tuple[str, Tail]]:
        limit = CONSOLE_OF_BAD if test.bad and self._room > 0 else CONSOLE_OF_OTHERS
        found = []
        for label in ("", *_labels(path)):
            one = tail(path / label, limit=limit, start=test.start)
            if one is not None:
                self._room -= sum(map(len, one.lines))
                found.append((label, one))
        return found

    def _usb(self, path: Path) -> dict[str, Any] | None:
        if self._records <= 0:
            return None
        found = summary(path, most=min(MOST_RECORDS, self._records))
        if found is None:
            return None
        self._records -= 2 * sum(one.transfers for one in found.endpoints)
        return asdict(found)


def first_ready(path: Path | None) -> dict[str, Any]:
    """The event that says how the test's target came to be; empty if there is none."""
    if path is not None:
        for event in bounded_lines(
            path / "events.jsonl", longest=64 * KiB, stop=lambda read: read > 64 * KiB
        ):
            if event.get("kind") == "ready":
                return event
    return {}


def _when(crash: Crash, tails: Sequence[Tail]) -> float | None:
    """When a console said a crash's first line, in seconds since the test began; None: unknown."""
    first = next((line.strip() for line in crash.text.splitlines() if line.strip()), "")
    for one in tails:
        if first and one.times is not None:
            for line, time in zip(one.lines, one.times, strict=False):
                if first in line:
                    return time / 1000
    return None


def _labels(path: Path) -> list[str]:
    """The directories of further targets that the test opened."""
    try:
        return sorted(p.parent.name for p in path.glob("*/console.log"))[:8]
    except OSError:
        return []


def _console(label: str, tail: Tail) -> dict[str, Any]:
    times = tail.times
    found: dict[str, Any] = {
        "label": label,
        "text": "\n".join(tail.lines),
        "size": tail.size,
        "cut": tail.cut,
        "inherited": tail.inherited,
    }
    if times is not None:
        # Differences: small numbers, that compress well.
        found["times"] = [b - a for a, b in zip([0, *times], times, strict=False)]
    return found


def _events(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The first and the last, and how many between them were left out (-1: unknown)."""
    first: list[dict[str, Any]] = []
    last: deque[dict[str, Any]] = deque(maxlen=_MOST_EVENTS - _FIRST_EVENTS)
    count = 0
    gap = False
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            data = file.read(_EVENT_BYTES)
            if size > 2 * _EVENT_BYTES:
                gap = True
                file.seek(size - _EVENT_BYTES)
                data = data.rpartition(b"\n")[0] + file.read(_EVENT_BYTES).partition(b"\n")[2]
            else:
                data += file.read(_EVENT_BYTES)
    except OSError:
        return [], 0
    for line in data.splitlines():
        event = parse(line)
        if event is None:
            continue
        count += 1
        short = {key: _short(value) for key, value in event.items() if key != "time"}
        if len(first) < _FIRST_EVENTS:
            first.append(short)
        else:
            last.append(short)
    return [*first, *last], -1 if gap else count - len(first) - len(last)


def _short(value: object) -> object:
    if isinstance(value, int | float | bool) or value is None:
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]} …"


def _files(path: Path) -> list[tuple[str, int]]:
    """Names below the test's directory, and sizes."""
    found = []
    try:
        for each in sorted(path.rglob("*")):
            if each.is_file() and not each.name.startswith("."):
                found.append((each.relative_to(path).as_posix(), each.stat().st_size))
                if len(found) >= _MOST_FILES:
                    break
    except OSError:
        pass
    return found
