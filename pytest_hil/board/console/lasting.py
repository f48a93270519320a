"""A console's transport that outlives its line: an adapter that comes back, a server too.

The descriptor that a console polls must stay the same. So it is a duplicate of the line's own, and
while the line is gone dup2(2) makes it the read end of an empty pipe: nothing can be read from or
written to it, and it hangs up (for all who poll it) when the line is back or given up. Without an
outage there is no thread, no copy and no buffer between the console and the line.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost, HilError

if TYPE_CHECKING:
    from pytest_hil.board.console.watch import Watch

# Seconds between two tries where no event tells: the first, and (doubled each time) the longest.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
# A line that is lost sooner than this (seconds) was not really back: a server that takes one client
# only answers and hangs up. Its outage goes on.
_STEADY = 1.0
# poll(2) takes no endless number (seconds).
_LONGEST_WAIT = 3600.0
# How long close() waits (seconds) for a try that cannot be interrupted; it ends by itself then.
_CLOSING = 1.0

_log = logging.getLogger(__name__)


class LastingTransport:
    """A transport that is opened again when its line breaks or ends.

    ``open`` makes the line: once here, whose errors are raised, and then once for each try.
    ``patience``: how long an outage may take, in seconds; 0: none is tolerated. ``watch``: the
    path whose coming is worth a try at once; without one, tries are made with growing pauses.
    ``late``: the line need not be there yet; it is waited for once :meth:`powered` was called.

    What was written before an outage may be lost in the line, as on any wire; it is never sent
    again. During the outage nothing is taken. When the line is back, the stream says so in a line
    of its own, and how long it took.
    """

    def __init__(
        self,
        open: Callable[[], Transport],
        name: str,
        patience: float,
        *,
        watch: Path | None = None,
        late: bool = False,
    ) -> None:
        self._open = open
        self._name = name
        self._patience = patience
        self._watch = watch
        self._lock = threading.Lock()
        self._closed = False
        self._failure = ""
        self._note = b""
        self._began = 0.0
        self._pause = _FIRST_PAUSE
        self._thread: threading.Thread | None = None
        # Of the outage: what ends its waiting, and the other end of the pipe that is polled.
        self._wake = self._hold = -1
        # Without power nobody can expect a line: the time since then does not count.
        self._unpowered = False
        self._powered_at = 0.0
        self._missed = ""
        self._was_there = True
        self._line: Transport | None = None
        self._opened = time.monotonic()
        try:
            self._line = open()
        except ChannelLost:
            if not late or patience <= 0:
                raise
            self._begin_late()
            return
        try:
            self._fd = os.dup(self._line.fileno())
        except BaseException:
            self._line.close()
            raise

    @property
    def there(self) -> bool:
        """Whether the line is there now."""
        return self._line is not None

    @property
    def failure(self) -> str:
        """Why the line was given up; "" while it was not."""
        return self._failure

    def unpowered(self) -> None:
        """What the line ends in has no power: it may be gone for as long as that is so."""
        with self._lock:
            self._unpowered = True
            self._look_again()

    def powered(self) -> None:
        """It has power again: from now on an outage's time counts."""
        with self._lock:
            self._unpowered = False
            self._powered_at = time.monotonic()
            self._look_again()

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        with self._lock:
            if self._note:
                return self._return(size)
            line = self._there()
            try:
                if data := line.read(size):
                    return data
                why = "the other side ended it"
            except BlockingIOError:
                raise
            except OSError as error:
                why = error.strerror or str(error)
            self._lose(line, why)
            self._there()
            raise BlockingIOError

    def write(self, data: memoryview) -> int:
        with self._lock:
            line = self._there()
            try:
                return line.write(data)
            except BlockingIOError:
                raise
            except OSError as error:
                # The reader sees the same and more: the last bytes that came, and its own reason.
                # But a line that only broke in this direction must not be kept for ever.
                self._lose(line, error.strerror or str(error), with_rest=True)
            self._there()
            raise BlockingIOError

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            line, self._line = self._line, None
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        if self._thread is not None:
            self._thread.join(_CLOSING)
        if line is not None:
            line.close()
        os.close(self._fd)

    # With the lock held

    def _there(self) -> Transport:
        """The line. Raises BlockingIOError while it is away, OSError when it was given up."""
        if self._failure:
            raise OSError(self._failure)
        if self._line is None:
            raise BlockingIOError
        return self._line

    def _return(self, size: int) -> bytes:
        """The note that the line is back; after its last byte the descriptor is the line's."""
        note, self._note = self._note[:size], self._note[size:]
        if not self._note and self._line is not None:
            os.dup2(self._line.fileno(), self._fd, inheritable=False)
        return note

    def _lose(self, line: Transport, why: str, *, with_rest: bool = False) -> None:
        """Let go of the line (``with_rest``: once it has said all), and begin to look for it."""
        if with_rest:
            self._note += _last_bytes(line)
        now = time.monotonic()
        again = self._began > 0 and now - self._opened < _STEADY
        if not again:
            self._began, self._pause = now, _FIRST_PAUSE
        theirs, self._hold = os.pipe()
        os.dup2(theirs, self._fd, inheritable=False)
        os.close(theirs)
        self._line = None
        self._missed = f"the line was lost ({why}) and did not come back"
        line.close()
        if self._patience <= 0:
            self._failure = f"the line was lost ({why})"
            self._hang_up()
            return
        if self._thread is not None:
            # The last outage's: it has brought the line, so it is at its end.
            self._thread.join()
        self._begin_outage(now, again)

    def _begin_late(self) -> None:
        self._fd, self._hold = os.pipe()
        self._was_there = False
        self._unpowered = True
        self._began = self._opened
        self._missed = "it did not appear"
        self._begin_outage(self._opened, again=False)

    def _look_again(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _begin_outage(self, lost: float, again: bool) -> None:
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(
            target=self._outage,
            args=(self._wake, lost, again),
            name=f"hil-lasting-{self._name}",
            daemon=True,
        )
        self._thread.start()

    def _hang_up(self) -> None:
        os.close(self._hold)
        self._hold = -1

    # The thread of one outage

    def _outage(self, wake: int, lost: float, again: bool) -> None:
        found: Transport | Exception | None = None
        try:
            found = self._look_for_it(wake, again)
        except Exception as error:
            # Not expected; but the console must not wait for a thread that is gone.
            _log.exception("the console of %s cannot be looked for", self._name)
            found = error
        finally:
            # In one go: as soon as the lock is free, the line may be lost again.
            with self._lock:
                self._wake = -1
                os.close(wake)
                if found is None or isinstance(found, Exception):
                    self._failure = self._epitaph(found)
                elif self._closed:
                    found.close()
                else:
                    self._take(found, lost)
                self._hang_up()

    def _take(self, line: Transport, lost: float) -> None:
        self._line = line
        self._opened = time.monotonic()
        took = self._opened - lost
        what = "the console was lost; it is back" if self._was_there else "the console is there"
        self._was_there = True
        note = f"\r\n[pytest-hil: {what} after {took:.1f} s]\r\n"
        self._note += note.encode()

    @property
    def _deadline(self) -> float:
        """Until when the line is waited for; it changes with its power."""
        if self._unpowered:
            return float("inf")
        return max(self._began, self._powered_at) + self._patience

    def _look_for_it(self, wake: int, again: bool) -> Transport | Exception | None:
        """The line, or the last error; None: it comes back and is lost, until the deadline."""
        with contextlib.ExitStack() as stack:
            watch = self._watched(stack)
            if again:
                if watch is not None:
                    watch.arm()
                if not self._wait(wake, watch) or time.monotonic() >= self._deadline:
                    return None
            while True:
                if watch is not None:
                    watch.arm()
                try:
                    return self._open()
                except (OSError, HilError) as error:
                    last = error
                if time.monotonic() >= self._deadline or not self._wait(wake, watch):
                    return last

    def _watched(self, stack: contextlib.ExitStack) -> Watch | None:
        if self._watch is None:
            return None
        from pytest_hil.board.console.watch import Watch

        try:
            return stack.enter_context(Watch(self._watch))
        except OSError:
            # The host's limit of watches: the pauses are left.
            return None

    def _wait(self, wake: int, watch: Watch | None) -> bool:
        """Wait until a try is worth it, at most to the deadline; False when it was closed."""
        deadline = self._deadline
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        until = min(deadline, time.monotonic() + self._pause)
        if watch is not None:
            poll.register(watch.fileno(), select.POLLIN)
            if watch.missing():
                until = deadline
        self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        while (left := until - time.monotonic()) > 0:
            ready = [fd for fd, _ in poll.poll(min(left, _LONGEST_WAIT) * 1000)]
            if wake in ready:
                # Closed, or there is power now, or none.
                os.eventfd_read(wake)
                return not self._closed
            if watch is not None and watch.fileno() in ready and watch.happened():
                self._pause = _FIRST_PAUSE
                return True
        return not self._closed

    def _epitaph(self, last: Exception | None) -> str:
        text = f"{self._missed} within {self._patience:g} s"
        return f"{text}; the last try: {last}" if last else f"{text}: it is lost again and again"


def _last_bytes(line: Transport) -> bytes:
    """What a line that broke has still to say: at most what a kernel holds for a tty or socket."""
    found = b""
    with contextlib.suppress(OSError):
        while len(found) < 2**20 and (data := line.read(2**16)):
            found += data
    return found
