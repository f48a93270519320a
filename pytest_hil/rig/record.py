"""What happened to a board, seen from its own side: who was at its serial line, and when.

It is independent of whoever uses the board: that two runs never had it at once is read here.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

What = Literal["begin", "end", "violation", "overrun", "on", "off", "reset", "exit", "fault"]


@dataclass(frozen=True, slots=True)
class Event:
    """``time`` in seconds since the epoch, ``clock`` on the host's monotonic clock.

    ``begin`` and ``end`` of a serial connection, a ``violation`` (a second one, refused where that
    can be done), an ``overrun`` (its reader was too slow, bytes were lost); the board was switched
    ``on``, ``off`` or was ``reset``, its machine ended by itself (``exit``), a ``fault`` was set.
    ``peer``: who it was. ``detail``: what else is known.
    """

    time: float
    clock: float
    what: What
    peer: str = ""
    detail: str = ""


class Record:
    """A board's events, in memory and as lines of JSON in a file. Any thread may call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._events: list[Event] = []
        self._changed = threading.Condition()
        self._file = path.open("a", buffering=1, encoding="utf-8")

    def add(self, what: What, *, peer: str = "", detail: str = "") -> None:
        event = Event(time.time(), time.monotonic(), what, peer, detail)
        with self._changed:
            self._events.append(event)
            if not self._file.closed:
                self._file.write(f"{json.dumps(asdict(event))}\n")
            self._changed.notify_all()

    @property
    def events(self) -> tuple[Event, ...]:
        """All of them so far."""
        with self._changed:
            return tuple(self._events)

    @property
    def violations(self) -> tuple[Event, ...]:
        """Who came while somebody else was there."""
        return tuple(event for event in self.events if event.what == "violation")

    def count(self, what: What) -> int:
        return sum(event.what == what for event in self.events)

    def wait(self, wanted: Callable[[tuple[Event, ...]], bool], *, timeout: float) -> bool:
        """Until the events are as ``wanted``; False when they are not after ``timeout`` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: wanted(tuple(self._events)), timeout)

    def close(self) -> None:
        """The file is complete. May be called twice."""
        with self._changed:
            self._file.close()
