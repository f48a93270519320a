"""The terminal while something takes long: one line for each process that is busy with it.

On a terminal the lines stand below pytest's own and go away when they are done. Elsewhere (CI)
they are plain lines, few of them. They are written past pytest's capturing, to the terminal
itself, by whichever thread has something to say.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

# Seconds between two lines of one worker.
PLAIN_INTERVAL = 2.0
LIVE_INTERVAL = 0.1


class Reporter(Protocol):
    """What is needed of pytest's own reporter."""

    def column(self) -> int:
        """How far pytest has written in its present line."""

    def break_line(self) -> tuple[str, str]:
        """Make pytest go on in a new line; what to write before a line of ours, and after it."""

    def width(self) -> int:
        """Columns of the terminal."""


@dataclass(slots=True)
class _Busy:
    """What one worker does. ``shown``: when its last line was written; None: never."""

    text: str = ""
    pending: bool = False
    shown: float | None = None


class Display:
    """Shows what workers do. ``write`` puts text on the terminal at once; any thread may call."""

    def __init__(
        self,
        write: Callable[[str], None],
        reporter: Reporter,
        *,
        live: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._write = write
        self._reporter = reporter
        self._live = live
        self._clock = clock
        self._lock = threading.RLock()
        self._busy: dict[str, _Busy] = {}
        # Stands below the others on a terminal, while there are any.
        self._footer = ""
        self._drawn = 0
        self._drawn_at = float("-inf")
        # Shows what came too soon after the line before it, if nothing newer does.
        self._late: threading.Timer | None = None

    def status(self, worker: str, text: str) -> None:
        """What a worker does now; "" when it has done it."""
        with self._lock:
            if self._live:
                self._status_live(worker, text)
            else:
                self._status_plain(worker, text)

    def footer(self, text: str) -> None:
        """How far all of it is; shown with what is busy, from its next change on."""
        with self._lock:
            self._footer = text

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pytest writes: nothing of ours stands in its way meanwhile."""
        with self._lock:
            if not self._drawn:
                yield
                return
            self._erase()
            try:
                yield
            finally:
                self._draw()

    def close(self) -> None:
        """Take everything away that is not meant to stay."""
        with self._lock:
            if self._late is not None:
                self._late.cancel()
                self._late = None
            self._busy.clear()
            self._erase()

    def _show_in(self, seconds: float) -> None:
        if self._late is None:
            self._late = threading.Timer(seconds, self._show_late)
            self._late.daemon = True
            self._late.start()

    def _show_late(self) -> None:
        with self._lock:
            if self._late is not threading.current_thread():
                return  # closed meanwhile
            self._late = None
            if self._live:
                self._drawn_at = self._clock()
                self._draw()
                return
            for worker, busy in self._busy.items():
                if busy.pending:
                    self._status_plain(worker, busy.text)

    # On a terminal

    def _status_live(self, worker: str, text: str) -> None:
        if text:
            self._busy[worker] = _Busy(text)
        elif self._busy.pop(worker, None) is None:
            return
        now = self._clock()
        if text and now - self._drawn_at < LIVE_INTERVAL and self._drawn == len(self._busy):
            self._show_in(LIVE_INTERVAL)
            return
        self._drawn_at = now
        self._draw()

    def _draw(self) -> None:
        """Write the lines below pytest's, and go back to where it was."""
        self._erase()
        if not self._busy:
            return
        width = self._reporter.width() - 1
        lines = [_label(name, busy.text)[:width] for name, busy in sorted(self._busy.items())]
        if self._footer:
            lines.append(f"hil: {clean(self._footer)}"[:width])
        below = "".join(f"\n\r\x1b[2m{line}\x1b[0m\x1b[K" for line in lines)
        self._drawn = len(lines)
        self._write(below + self._back())

    def _erase(self) -> None:
        if self._drawn:
            self._write("\n\r\x1b[J" + self._back(1))
            self._drawn = 0

    def _back(self, lines: int | None = None) -> str:
        column = self._reporter.column()
        up = f"\x1b[{self._drawn if lines is None else lines}A\r"
        return up + (f"\x1b[{column}C" if column else "")

    # Elsewhere

    def _status_plain(self, worker: str, text: str) -> None:
        busy = self._busy.setdefault(worker, _Busy())
        if not text:
            if busy.pending:
                self._line(_label(worker, busy.text))
            del self._busy[worker]
            return
        now = self._clock()
        busy.text = text
        busy.pending = busy.shown is not None and now - busy.shown < PLAIN_INTERVAL
        if busy.pending:
            assert busy.shown is not None
            self._show_in(busy.shown + PLAIN_INTERVAL - now)
        else:
            busy.shown = now
            self._line(_label(worker, text))

    def _line(self, text: str) -> None:
        before, after = self._reporter.break_line()
        self._write(f"{before}{text}{after}")


def clean(text: str) -> str:
    """One line that cannot do anything to a terminal: a guest may have said a part of it."""
    return "".join(c if c.isprintable() else " " for c in text).strip()


def _label(worker: str, text: str) -> str:
    return f"hil {worker}: {clean(text)}" if worker else f"hil: {clean(text)}"
