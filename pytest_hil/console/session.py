"""The console of a live target: a thread that reads it, and the calls that tests make."""

from __future__ import annotations

import errno
import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.console.capture import Capture, Mark
from pytest_hil.console.interruption import Interruption
from pytest_hil.console.transcript import Transcript
from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost

if TYPE_CHECKING:
    from pytest_hil.console.expect import Match, Patterns

MiB = 2**20
_READ_SIZE = 256 * 1024
_LAST_WORDS = 1.0
# ECMA-48: "device status report" 6, and the answer, "active position report", line 1, column 1.
CURSOR_ASKED, CURSOR_REPORT = b"\x1b[6n", b"\x1b[1;1R"
# A target that prints in a stream is read a line at a time, and a read of 100 bytes costs as much
# as one of 10,000. So after _RAPID reads, each at most _WITHIN seconds after the one before, there
# is a pause for more to come: too short for QEMU's side of a socket to fill up meanwhile.
_RAPID, _WITHIN, _PAUSE = 8, 0.0005, 0.0005
# Bytes: more than can have arrived and not been read. The buffers of a socket hold 2 MiB, those of
# a pty much less.
_MOST_BUFFERED = 4 * MiB
# Seconds without a word that are called a silence.
SILENCE = 0.3
# How the other end's death looks: a pty's master says EIO, a socket may say the others.
_ENDED = frozenset({errno.EIO, errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN})

_log = logging.getLogger(__name__)


class Console:
    """What a target says, from its first byte, and the way to say something to it.

    Its own thread reads all the time, whether a test asks or not. Any thread may call.

    ``history`` is what this machine said before we had it (a clone inherits its template's boot
    log): part of :meth:`text` and of the transcript, but :meth:`expect` starts after it.
    ``keep`` is how many bytes stay in memory. ``grace``: see :class:`Capture`.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        name: str,
        history: bytes = b"",
        keep: int = 4 * MiB,
        grace: float = 0.5,
    ) -> None:
        self.name = name
        self._transport = transport
        self._capture = Capture(history=history, keep=keep, grace=grace)
        self._transcript: Transcript | None = None
        self._transcript_error: OSError | None = None
        self._recorded = 0
        self._subscribers: tuple[Callable[[bytes], object], ...] = ()
        self._listeners: tuple[Callable[[], bool], ...] = ()
        self._silence_matters = False
        # Taken in this order: writing, waking, feeding, the capture's own. Feeding is reentrant
        # because a subscriber may call us.
        self._writing = threading.Lock()
        self._waking = threading.Condition(threading.Lock())
        self._feeding = threading.RLock()
        # How often somebody has asked whether all is read, and the last of them that was answered.
        self._asked = self._answered = 0
        self._closing = False
        self._close_by = 0.0
        # Never so much at once that it pushes out what an expect has not seen yet.
        self._read_size = max(1, min(_READ_SIZE, keep // 4))
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._read, name=f"hil-console-{name}", daemon=True)
        self._thread.start()

    # To the target

    def send(self, data: str | bytes, *, timeout: float = 10.0) -> None:
        """Send bytes, or text as UTF-8.

        Raises ChannelLost when the target takes nothing for ``timeout`` seconds or the console is
        closed, or the error with which its owner ended it.
        """
        rest = memoryview(data.encode() if isinstance(data, str) else bytes(data))
        total = len(rest)
        if not self._writing.acquire(timeout=timeout):
            raise ChannelLost(
                f"the console of {self.name} is busy: another thread's send() is stuck"
            )
        try:
            while rest:
                self._check_open()
                try:
                    rest = rest[self._transport.write(rest) :]
                except BlockingIOError:
                    if not self._wait(select.POLLOUT, timeout):
                        raise ChannelLost(
                            f"the console of {self.name} takes no input: {total - len(rest)} of "
                            f"{total} bytes were sent, and none for {timeout:g} s",
                            mend="is anything on the target reading its console?",
                        ) from None
                except OSError as error:
                    self._check_open()
                    raise ChannelLost(f"the console of {self.name} is gone: {error}") from error
        finally:
            self._writing.release()

    def sendline(self, text: str | bytes = "", *, timeout: float = 10.0) -> None:
        r"""Send a line: ``text`` and ``\n``."""
        data = text.encode() if isinstance(text, str) else text
        self.send(data + b"\n", timeout=timeout)

    @property
    def cursor_report(self) -> bytes:
        """What a terminal would answer to its last word, if that asked where the cursor is.

        Otherwise nothing. Busybox's shell asks with each prompt, and keeps every line that is typed
        without this before it for 20 ms (``usleep`` in its libbb/lineedit.c).
        """
        _, last = self.raw_after(self.mark().raw - len(CURSOR_ASKED))
        return CURSOR_REPORT if last == CURSOR_ASKED else b""

    # From the target

    def expect(
        self, patterns: Patterns, *, timeout: float | None = 30.0, exact: bool = False
    ) -> Match:
        """Wait until the target says something that matches, and say what it was.

        ``patterns``: a regular expression (a string, in which ``.`` matches newlines too, or
        compiled), or a list of them; the one that matches first wins. ``exact``: strings, taken
        literally. The search begins where the last match ended, in what was said meanwhile, so
        nothing is lost between two calls. Control sequences are not seen. ``timeout`` in seconds;
        None: no end.

        Raises ExpectTimeout, ConsoleClosed, or the error with which the target's owner ended it.
        """
        from pytest_hil.console.expect import search

        return search(self._capture, patterns, timeout=timeout, exact=exact)

    def mark(self) -> Mark:
        """This moment, for :meth:`since` and :meth:`skip`."""
        return self._capture.mark()

    @property
    def inherited(self) -> int:
        """How many bytes of the stream were said before: by its template, or before a power cut."""
        return self._capture.live.raw

    def skip(self, mark: Mark) -> None:
        """Let the next :meth:`expect` begin at a mark, if it would begin before it."""
        self._capture.skip(mark)

    def rewind(self, mark: Mark) -> None:
        """Let the next :meth:`expect` begin at a mark, whatever was matched after it."""
        self._capture.rewind(mark)

    def since(self, mark: Mark, *, raw: bool = False) -> str:
        """What was said since a mark."""
        return self._capture.text(mark, raw=raw)

    def text(self, *, raw: bool = False) -> str:
        """All that was said, without control sequences unless ``raw``.

        When it is more than is kept, its first line says how many bytes are missing.
        """
        return self._capture.text(Mark(0, 0), raw=raw)

    def tail(self, lines: int = 40) -> str:
        """The last lines (of at most 16 KiB)."""
        return self._capture.tail(lines)

    def subscribe(
        self, callback: Callable[[bytes], object], *, replay: int = 0
    ) -> Callable[[], None]:
        """Call ``callback`` in the reading thread with all bytes from now on, ``b""`` at the end.

        Returns the function that ends it. The last ``replay`` bytes that were said are given first,
        at once. A callback that raises is logged and not called again.
        """
        with self._feeding:
            self._subscribers = (*self._subscribers, callback)
            if replay:
                self._call(callback, self.raw_after(self.mark().raw - replay)[1])

        def unsubscribe() -> None:
            with self._feeding:
                self._subscribers = tuple(s for s in self._subscribers if s is not callback)

        return unsubscribe

    def on_silence(self, callback: Callable[[], bool]) -> Callable[[], None]:
        """Call ``callback`` in the reading thread when something was said and then nothing more for
        :data:`SILENCE` seconds; again after as long if it returns true.

        Returns the function that ends it.
        """
        with self._feeding:
            self._listeners = (*self._listeners, callback)

        def end() -> None:
            with self._feeding:
                self._listeners = tuple(one for one in self._listeners if one is not callback)

        return end

    def catch_up(self, timeout: float) -> bool:
        """Wait until all that has arrived by now was given to who subscribes.

        False when that takes more than ``timeout`` seconds. Not for a subscriber: the reading
        thread waits for it.
        """
        with self._waking:
            self._asked = asked = self._asked + 1
            self._wake_up()
            return self._waking.wait_for(lambda: self._answered >= asked, timeout)

    def raw_after(self, offset: int) -> tuple[int, bytes]:
        """The bytes from an offset of the stream on, and the offset at which they really begin."""
        return self._capture.raw_after(offset)

    # On disk

    def record(self, to: str | PathLike[str] | Transcript | None) -> None:
        """Write a transcript into a directory from now on; None: no more.

        It begins with all that no transcript has yet: for the first one that is everything from the
        first byte. Disk trouble raises nothing: see :attr:`transcript_error`.
        """
        with self._feeding:
            if self._transcript is not None:
                self._transcript.close()
                self._keep_error()
                self._recorded = self.mark().raw
                self._transcript = None
            if to is not None:
                if not isinstance(to, Transcript):
                    to = Transcript(Path(to), name=self.name, t=self._now())
                self._transcript = to
                self._write_unrecorded(to)

    def _write_unrecorded(self, transcript: Transcript) -> None:
        capture = self._capture
        if left_out := capture.raw.left_out(self._recorded):
            transcript.note(0.0, left_out=left_out)
        for _, data in capture.raw.pieces(self._recorded, capture.live.raw):
            transcript.write(0.0, data, inherited=True)
        for t, data in capture.raw.pieces(max(self._recorded, capture.live.raw)):
            transcript.write(t, data)
        capture.where_all_is = "console.log has them"

    def _keep_error(self) -> None:
        if self._transcript is not None and self._transcript_error is None:
            self._transcript_error = self._transcript.error

    @property
    def transcript_error(self) -> OSError | None:
        """Why a transcript is incomplete: the first error of a write, None if there was none."""
        with self._feeding:
            self._keep_error()
            return self._transcript_error

    # Its end

    @property
    def closed(self) -> bool:
        """Whether the stream has ended, from whichever side."""
        return self._capture.ended

    def wait_closed(self, timeout: float | None = None) -> bool:
        """Wait for the end; False when it has not come after ``timeout`` seconds."""
        return self._capture.wait_ended(timeout)

    def fail(self, error: Exception) -> None:
        """The owner says why the target is gone: whoever waits, now or later, gets that error."""
        self._capture.fail(error)

    @property
    def interruption(self) -> Interruption:
        """Ends what waits for this target once, without ending the target."""
        return self._capture.interruption

    def close(self) -> None:
        """End the thread, the transcript and the transport. May be called twice.

        What the target has said is read to its end before; what it will say is not waited for.
        """
        if not self._closing:
            self._close_by = time.monotonic() + _LAST_WORDS
            self._closing = True
        self._capture.abandon()
        with self._waking:
            self._wake_up()
        # A subscriber may close the console: then this is the thread; it does the rest at its end.
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=5.0)
            if not self._thread.is_alive():
                self._release()

    def _wake_up(self) -> None:
        if self._wake >= 0:
            os.eventfd_write(self._wake, 1)

    def _release(self) -> None:
        self.record(None)
        with self._writing, self._waking:
            self._transport.close()
            if self._wake >= 0:
                os.close(self._wake)
                self._wake = -1

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # The reading thread

    def _read(self) -> None:
        rapid, last = 0, 0.0
        # Who has asked whether all is read, and how much was since then.
        asked = since = 0
        try:
            # When it is closed, what is there already is still read; a flood has a second for that.
            while not self._closing or time.monotonic() < self._close_by:
                if not asked and self._asked != self._answered:
                    asked, since = self._asked, 0
                try:
                    data = self._transport.read(self._read_size)
                except BlockingIOError:
                    if self._closing:
                        break
                    if asked:
                        self._answer(asked)
                        asked = 0
                    silence = SILENCE if self._silence_matters else None
                    if not self._wait(select.POLLIN, silence):
                        self._silent()
                    continue
                if not data:
                    break
                self._feed(data)
                since += len(data)
                if asked and since >= _MOST_BUFFERED:
                    self._answer(asked)
                    asked = 0
                now = time.monotonic()
                paused = _PAUSE if rapid >= _RAPID else 0
                rapid = rapid + 1 if now - last < _WITHIN + paused else 0
                last = now
                if rapid >= _RAPID:
                    time.sleep(_PAUSE)
        except OSError as error:
            if error.errno not in _ENDED and not self._closing:
                self.fail(ChannelLost(f"the console of {self.name} broke: {error}"))
        except Exception as error:
            # Not expected; but whoever waits must learn of it.
            _log.exception("the console of %s cannot be read any more", self.name)
            self.fail(ChannelLost(f"the console of {self.name} broke: {error!r}"))
        finally:
            self._capture.finish()
            with self._feeding:
                for callback in self._subscribers:
                    self._call(callback, b"")
            self._answer(sys.maxsize)
            if self._closing:
                self._release()

    def _answer(self, asked: int) -> None:
        """All that had arrived when somebody asked has been read."""
        with self._waking:
            self._answered = asked
            self._waking.notify_all()
            # Unless the next one has asked meanwhile, or it is to end.
            if asked == self._asked and not self._closing:
                os.eventfd_read(self._wake)

    def _feed(self, data: bytes) -> None:
        with self._feeding:
            t = self._now()
            # First the disk: what a test has seen is in its transcript.
            if self._transcript is not None:
                self._transcript.write(t, data)
            self._capture.feed(data, t)
            for callback in self._subscribers:
                self._call(callback, data)
            self._silence_matters = bool(self._listeners)
        self._capture.let_followers_catch_up(timeout=1.0)

    def _silent(self) -> None:
        with self._feeding:
            self._silence_matters = False
            for callback in self._listeners:
                try:
                    self._silence_matters |= callback()
                except Exception:
                    _log.exception("a listener to the silence of %s failed", self.name)

    def _call(self, callback: Callable[[bytes], object], data: bytes) -> None:
        try:
            callback(data)
        except Exception:
            _log.exception("a subscriber of the console of %s failed and is dropped", self.name)
            self._subscribers = tuple(s for s in self._subscribers if s is not callback)

    # Both sides

    def _wait(self, event: int, timeout: float | None) -> bool:
        """Wait until the transport is ready or the console is closed; False when neither came."""
        poll = select.poll()
        poll.register(self._transport.fileno(), event)
        poll.register(self._wake, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))

    def _check_open(self) -> None:
        if self._capture.error is not None:
            raise self._capture.error.with_traceback(None)
        if self._closing:
            raise ChannelLost(f"the console of {self.name} is closed")

    def _now(self) -> float:
        return time.monotonic() - self._capture.started
