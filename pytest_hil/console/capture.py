"""What a console said, kept in memory: fed by one thread, read and waited for by others.

It holds the bytes and the clean text, the last few MiB of each. Positions are offsets
in the whole stream, so a position stays true when what it points at was dropped; who
asks for that gets what is left and a line that says how much is missing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from pytest_hil.console.backlog import Backlog, TimedBacklog
from pytest_hil.console.interruption import Interruption
from pytest_hil.console.stream import TextStream, split_utf8

# The longest text that tail() gives, in bytes: lines may have no end.
_TAIL_BYTES = 16 * 1024
# How much a waiting reader takes at a time, in bytes.
_PIECE = 1024 * 1024
# A search that is made at each byte of a slow line costs more than it finds: see Follower.more.
_PAUSE_FACTOR = 2
_LONGEST_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment in a console's output: offsets in its bytes and in its text (UTF-8)."""

    raw: int
    text: int


class Capture:
    """The memory of one console. ``keep`` is in bytes, for the bytes and for the text.

    ``grace`` (seconds): when the stream ends by itself, its owner is about to say why
    (:meth:`fail`), and when the owner says why, the last bytes are about to come: those
    who wait get that long before they are told of the end.
    """

    def __init__(self, *, history: bytes, keep: int, grace: float) -> None:
        self.started = time.monotonic()
        self.raw = TimedBacklog(keep)
        self.where_all_is = "no transcript has them"
        self.keep = keep
        self._grace = grace
        self._text = Backlog(keep)
        self._stream = TextStream()
        self.changed = threading.Condition()  # reentrant
        self.interruption = Interruption()
        self.interruption.on_change(self._wake)
        self._followers: list[Follower] = []
        self._error: Exception | None = None
        self._final = False
        self._over_at: float | None = None
        self._ended = False
        self.raw.append_at(history, -1.0)  # before our time began
        self._text.append((self._stream.feed(history) + self._stream.finish()).encode())
        self.cursor = self._text.end
        self.live = Mark(self.raw.end, self._text.end)

    # The reading thread's side

    def feed(self, data: bytes, t: float) -> None:
        """The next bytes; ``t`` in seconds since ``started``."""
        text = self._stream.feed(data).encode()
        with self.changed:
            self.raw.append_at(data, t)
            self._text.append(text)
            self.changed.notify_all()

    def let_followers_catch_up(self, timeout: float) -> None:
        """Wait while somebody who reads along would soon lose text; at most ``timeout`` seconds."""
        if self._followers:
            with self.changed:
                self.changed.wait_for(lambda: self._final or not self._lagging(), timeout)

    def finish(self) -> None:
        """The stream has ended."""
        with self.changed:
            self._text.append(self._stream.finish().encode())
            self._ended = True
            self._over_at = self._over_at or time.monotonic()
            self.changed.notify_all()

    def fail(self, error: Exception) -> None:
        """Why the stream ends or has ended; the first reason stays."""
        with self.changed:
            self._error = self._error or error
            self._over_at = self._over_at or time.monotonic()
            self.changed.notify_all()

    def abandon(self) -> None:
        """We end it: nobody will say why, and nobody who waits needs to wait for that."""
        with self.changed:
            self._final = True
            self._over_at = self._over_at or time.monotonic()
            self.changed.notify_all()

    def _wake(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def _lagging(self) -> bool:
        return any(self._text.end - f.position > self._text.limit // 2 for f in self._followers)

    # Everybody's side

    @property
    def start(self) -> int:
        """The offset of the first text that is still here."""
        return self._text.start

    @property
    def end(self) -> int:
        """The offset after the last text."""
        return self._text.end

    @property
    def grace_ends(self) -> float | None:
        """When those who wait are told of the end (time.monotonic); None: it goes on."""
        return None if self._over_at is None else self._over_at + self._grace

    def end_is_known(self, *, late: bool) -> bool:
        """Whether the grace is needless: all is known, or there is no time (``late``)."""
        if self._over_at is None:
            return False
        return late or self._final or (self._ended and self._error is not None)

    @property
    def ended(self) -> bool:
        """Whether the last byte has come."""
        return self._ended

    @property
    def error(self) -> Exception | None:
        """The owner's reason, when there is one."""
        return self._error

    def wait_ended(self, timeout: float | None) -> bool:
        """Wait for the last byte; False when it has not come after ``timeout`` seconds."""
        with self.changed:
            return self.changed.wait_for(lambda: self._ended, timeout)

    def mark(self) -> Mark:
        """This moment."""
        with self.changed:
            return Mark(self.raw.end, self._text.end)

    def text(self, mark: Mark, *, raw: bool = False) -> str:
        """What was said since a mark; as it came (decoded only) when ``raw``."""
        with self.changed:
            if raw:
                data, left_out = self.raw.read(mark.raw), self.raw.left_out(mark.raw)
            else:
                data, left_out = self._text.read(mark.text), self._text.left_out(mark.text)
        return self._gap(left_out) + data.decode("utf-8", "replace" if raw else "ignore")

    def skip(self, mark: Mark) -> None:
        """Let the next search begin at a mark, if it would begin before it."""
        with self.changed:
            self.cursor = max(self.cursor, mark.text)

    def rewind(self, mark: Mark) -> None:
        """Let the next search begin at a mark, whatever was found after it."""
        with self.changed:
            self.cursor = mark.text

    def raw_after(self, offset: int) -> tuple[int, bytes]:
        """The bytes from an offset on, and the offset at which they really begin."""
        with self.changed:
            start = max(offset, self.raw.start)
            return start, self.raw.read(start)

    def between(self, start: int, end: int) -> str:
        """The clean text between two positions."""
        with self.changed:
            return self._gap(self._text.left_out(start)) + self._text.text(start, end)

    def read(self, start: int, size: int) -> bytes:
        """Clean text from a position on, as UTF-8."""
        with self.changed:
            return self._text.read(start, start + size)

    def tail(self, lines: int, *, since: int = 0) -> str:
        """The last lines of the clean text after a position, bounded in bytes too."""
        with self.changed:
            text = self._text.text(max(since, self._text.end - _TAIL_BYTES))
        return "".join(text.splitlines(keepends=True)[-lines:])

    def _gap(self, left_out: int) -> str:
        if not left_out:
            return ""
        return f"[pytest-hil: {left_out} bytes before this were left out; {self.where_all_is}]\n"

    @contextmanager
    def follow(self) -> Iterator[Follower]:
        """Read the text along from the cursor on."""
        follower = Follower(self, self.cursor)
        with self.changed:
            self._followers.append(follower)
        try:
            yield follower
        finally:
            with self.changed:
                self._followers.remove(follower)
                self.changed.notify_all()


class Follower:
    """Somebody who reads a capture's text along, from ``start`` on, and misses nothing.

    ``position`` is the offset after what was read so far.
    """

    def __init__(self, capture: Capture, start: int) -> None:
        self.start = start
        self.position = start
        self._capture = capture
        self._returned: float | None = None
        self._last: int | None = None

    def more(self, deadline: float | None) -> str:
        """The next text; waits for it until ``deadline`` (of time.monotonic; None: for ever).

        What was there before the deadline is given even after it. Raises TimeoutError, EOFError
        when the stream has ended, the error that its owner gave as the reason, or an interruption.
        """
        capture, changed = self._capture, self._capture.changed
        with changed:
            self._pause(deadline)
            while True:
                capture.interruption.check()
                now = time.monotonic()
                late = deadline is not None and now >= deadline
                over = capture.grace_ends is not None and now >= capture.grace_ends
                if (late or over) and self._last is None:
                    # A target that never stops must not keep us beyond this.
                    self._last = capture.end
                if self.position < (capture.end if self._last is None else self._last):
                    return self._take()
                if over or capture.end_is_known(late=late):
                    raise capture.error.with_traceback(None) if capture.error else EOFError
                if late:
                    raise TimeoutError
                wakes = [t for t in (deadline, capture.grace_ends) if t is not None]
                changed.wait(min(wakes) - now if wakes else None)

    def _take(self) -> str:
        start = max(self.position, self._capture.start)
        data, _started = split_utf8(self._capture.read(start, _PIECE))
        self.position = start + len(data)
        self._returned = time.monotonic()
        self._capture.changed.notify_all()
        return data.decode("utf-8", "ignore")

    def _pause(self, deadline: float | None) -> None:
        """Let text gather after a search that found nothing, for a few times as long as it took.

        A slow line brings a few bytes at a time, and each search looks back (see expect.py):
        without this, an expect that waits would keep a CPU busy beside the machine it waits for.
        """
        if self._returned is None:
            return
        now = time.monotonic()
        pause = min(_PAUSE_FACTOR * (now - self._returned), _LONGEST_PAUSE)
        if deadline is not None:
            pause = min(pause, deadline - now)
        if pause > 0:
            self._capture.changed.wait_for(self._enough, pause)

    def _enough(self) -> bool:
        capture = self._capture
        return capture.ended or capture.end - self.position >= min(_PIECE // 16, capture.keep // 4)
