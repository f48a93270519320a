"""Reads along what an opened target says, and says at once when it has crashed."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from pytest_hil.console.session import SILENCE, Console
from pytest_hil.errors import Crashed, HilError, InfrastructureError, NoCrash

if TYPE_CHECKING:
    from types import TracebackType

    from pytest_hil.crash import Crash, Detector, Rules

    RulesOf = Callable[[], Rules]

# How long a crash that must be there may take to be read to its end, in seconds.
_PATIENCE = 2.0
# What is put off at most until the first rules are compiled: bytes, and seconds.
_MOST_PUT_OFF, _PUT_OFF = 64 * 1024, SILENCE

_log = logging.getLogger(__name__)


def blind(why: Exception) -> InfrastructureError:
    """Nobody knows whether something crashes: rules cannot be used, or broke."""
    if isinstance(why, HilError):
        said, mend = why.message, why.mend
    else:
        said, mend = f"{type(why).__name__}: {why}", ""
    return InfrastructureError(f"crashes cannot be found any more: {said}", mend=mend)


class _Reader:
    """Reads one console; ``found`` gets the crashes, perhaps none, after each look.

    ``make`` compiles rules, the first time in a process for longer than a short command takes: that
    is put off until the console is silent, as it is when the others wait for a command, or until
    somebody wants to know. ``failed`` is told once why nothing is read any more.
    """

    _compiled = False

    def __init__(
        self,
        make: Callable[[], Detector],
        at_rest: Callable[[], bool],
        found: Callable[[Sequence[Crash]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._make = make
        self._at_rest = at_rest
        self._found = found
        self._failed = failed
        self._started = time.monotonic()
        self._lock = threading.RLock()
        self._detector: Detector | None = None
        # Data, when it came, and whether the target was at rest.
        self._put_off: deque[tuple[bytes, float, bool]] = deque()
        self._size = 0
        self._broken = False
        # Whether somebody has waited for what is read: from then on nothing is put off.
        self.wanted = False

    @property
    def reading(self) -> bool:
        """Whether something has been said and not been read to its end."""
        if self._broken:
            return False
        return bool(self._put_off) or (self._detector is not None and self._detector.reading)

    def said(self, data: bytes) -> None:
        """A console's subscriber."""
        with self._lock:
            if self._broken:
                return
            self._put_off.append((data, time.monotonic() - self._started, self._at_rest()))
            self._size += len(data)
            if not data or not self._may_wait:
                self._look()

    @property
    def _may_wait(self) -> bool:
        if self._detector is not None or _Reader._compiled or self.wanted:
            return False
        (_, first, _), (_, last, _) = self._put_off[0], self._put_off[-1]
        return self._size < _MOST_PUT_OFF and last - first < _PUT_OFF

    def read(self, timeout: float = -1) -> None:
        """Read what was put off. ``timeout``: how long another thread may be at it, in seconds."""
        if self._lock.acquire(timeout=timeout):
            try:
                self._look()
            finally:
                self._lock.release()

    def silent(self) -> bool:
        """Who is told when a console falls silent: whether that says something again later."""
        with self._lock:
            self._look(idle=True)
            return self.reading

    def _look(self, *, idle: bool = False) -> None:
        try:
            while self._put_off:
                if self._detector is None:
                    self._detector = self._make()
                    _Reader._compiled = True
                data, at, self._detector.watch_resets = self._put_off[0]
                crashes = self._detector.feed(data, at) if data else self._detector.finish()
                # Who is told of them asks whether anything is left.
                self._put_off.popleft()
                self._size -= len(data)
                self._found(crashes)
            if idle and self._detector is not None:
                self._found(self._detector.idle())
        except Exception as error:
            self._broken = True
            self._put_off.clear()
            self._failed(error)


class CrashWatch:
    """The crashes of one target, over all the consoles that it has in its time.

    A crash that nobody expects interrupts what waits for the target: a command, an expect. Any
    thread may call. ``ignore``: patterns of titles that are no news. ``rules`` gives what is looked
    for; it is asked when the console is read for the first time.
    """

    def __init__(self, rules: RulesOf | None = None) -> None:
        self._rules = rules
        self.ignore: tuple[re.Pattern[str], ...] = ()
        self.on_crash: Callable[[Crash], object] = lambda _crash: None
        # Whether a boot that is seen now is one that nobody asked for, and who is to know at once,
        # before others do, that the system is gone: it panicked, or it restarted.
        self.at_rest: Callable[[], bool] = lambda: False
        self.on_gone: Callable[[Crash], object] = lambda _crash: None
        # Why crashes are not found any more: rules that cannot be used, or that broke.
        self.failure: InfrastructureError | None = None
        # Of all that were ever read, those that are expected or no news too.
        self.titles: list[str] = []
        # How many of them there were when records of crashes were last taken from the target's
        # pstore; None: nobody has looked there yet.
        self.settled: int | None = None
        self._news = threading.Condition()
        self._found: list[Crash] = []
        self._seen = 0
        self._expected: list[Expected] = []
        self._console: Console | None = None
        self._reader: _Reader | None = None
        self._unfollow: tuple[Callable[[], None], ...] = ()

    def follow(self, console: Console) -> None:
        """This is the target's console from now on."""
        if console is self._console:
            return
        self.close()
        reader = _Reader(
            self._make,
            lambda: self.at_rest(),
            lambda crashes: self._take(crashes, console),
            self._fail,
        )
        self._console, self._reader = console, reader
        self._unfollow = (console.on_silence(reader.silent), console.subscribe(reader.said))

    def _make(self) -> Detector:
        from pytest_hil.crash import Detector

        return Detector(None if self._rules is None else self._rules())

    def _fail(self, error: Exception) -> None:
        _log.error("crashes are not found any more", exc_info=error)
        with self._news:
            self.failure = blind(error)
            self._news.notify_all()

    def read(self, *, wanted: bool = False) -> None:
        """Read what was said and put off: it was said before what is done next.

        ``wanted``: somebody is about to wait for what is said from now on, too.
        """
        if (reader := self._reader) is not None:
            reader.wanted |= wanted
            reader.read(_PATIENCE)

    def close(self) -> None:
        """Follow no console any more. What was found stays, and what was said is read."""
        self.read()
        unfollow, self._unfollow = self._unfollow, ()
        self._console = self._reader = None
        for end in unfollow:
            end()

    # --- what there was ---

    def mark(self) -> int:
        """This moment, for :meth:`since`."""
        with self._news:
            return len(self._found)

    def since(self, mark: int) -> Sequence[Crash]:
        """The crashes since then that nobody expected."""
        with self._news:
            return tuple(self._found[mark:])

    def unseen(self) -> Sequence[Crash]:
        """Those that nobody has asked for yet; then they have been."""
        self.read()
        with self._news:
            found = tuple(self._found[self._seen :])
            self._seen = len(self._found)
            return found

    def settle_unseen(self) -> Sequence[Crash]:
        """:meth:`unseen`, when what is being printed now has been read to its end."""
        with self._news:
            seen = self._seen
        return self.settle(seen)

    def settle(self, mark: int, *, certain: bool = False) -> Sequence[Crash]:
        """:meth:`since`, when what is being printed now has been read to its end.

        ``certain``: there must be one, its words may only be on their way.
        """
        deadline = time.monotonic() + _PATIENCE
        if (console := self._console) is not None:
            # A command's result comes by another way, and may overtake what it made the kernel say.
            console.catch_up(_PATIENCE)
        self.read(wanted=True)
        with self._news:
            self._news.wait_for(
                lambda: (
                    self.failure is not None
                    or (not self._reading and not (certain and len(self._found) == mark))
                ),
                max(0.0, deadline - time.monotonic()),
            )
            self._seen = len(self._found)
            return tuple(self._found[mark:])

    @property
    def _reading(self) -> bool:
        return self._reader is not None and self._reader.reading

    def _take(self, crashes: Sequence[Crash], console: Console) -> None:
        for crash in crashes:
            self.titles.append(crash.title)
            if crash.gone:
                self.on_gone(crash)
            if any(one.search(crash.title) for one in self.ignore):
                continue
            with self._news:
                if not any(one.takes(crash) for one in self._expected):
                    self._found.append(crash)
                    console.interruption.give(Crashed(crash.title, crash=crash))
            self.on_crash(crash)
        with self._news:
            self._news.notify_all()

    # --- what is wanted ---

    def expect(self, match: str, *, timeout: float) -> Expected:
        """See :meth:`pytest_hil.target.Target.crashes`."""
        return Expected(self, re.compile(match), timeout)


class Expected:
    """``with hil.crashes("KASAN: .* in foo") as expected:``; ``crashes`` are those that came."""

    def __init__(self, watch: CrashWatch, pattern: re.Pattern[str], timeout: float) -> None:
        self.crashes: list[Crash] = []
        self._watch = watch
        self._pattern = pattern
        self._timeout = timeout

    def takes(self, crash: Crash) -> bool:
        """Whether it is one of those; then it is taken. What follows one from it is no news."""
        if self._pattern.search(crash.title) or (self.crashes and crash.follow_up):
            self.crashes.append(crash)
            return True
        return False

    def __enter__(self) -> Expected:
        self._watch.read()  # what came before is none of its
        with self._watch._news:
            self.crashes = []  # those of an earlier block are none of this one
            self._watch._expected.append(self)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        watch = self._watch
        try:
            watch.read(wanted=True)
            # An error of the target's is what a crash looks like from here; any other is news.
            if error is not None and not isinstance(error, HilError):
                with watch._news:
                    watch._news.wait_for(lambda: not watch._reading, _PATIENCE)
                return False
            with watch._news:
                watch._news.wait_for(
                    lambda: (self.crashes and not watch._reading) or watch.failure, self._timeout
                )
            if self.crashes:
                return True
            if error is None and watch.failure is not None:
                raise watch.failure.with_traceback(None)
            if error is None:
                raise NoCrash(self._pattern.pattern, timeout=self._timeout)
            return False
        finally:
            with watch._news:
                watch._expected.remove(self)
