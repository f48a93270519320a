"""Waiting until a console says something: pexpect's search over a capture.

pexpect brings the loop, the compiling of patterns and the choice between them; what it
searches is ours, because its own window either grows with what was printed, and is
searched anew each time (200 MB of output would take hours), or forgets what came in one
piece larger than it. Here everything new is searched, and of what was searched in vain
before, the last LOOKBACK characters: a match that begins further back is not found when
it was not complete at once.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pexpect  # type: ignore[import-untyped]
from pexpect.expect import (  # type: ignore[import-untyped]
    Expecter,
    searcher_re,
    searcher_string,
)
from pexpect.spawnbase import SpawnBase  # type: ignore[import-untyped]

from pytest_hil.console.capture import Capture, Follower
from pytest_hil.errors import ConsoleClosed, ExpectTimeout

LOOKBACK = 64 * 1024

Pattern = str | re.Pattern[str]
Patterns = Pattern | Sequence[Pattern]


@dataclass(frozen=True, slots=True)
class Match:
    """What :meth:`Console.expect` found.

    ``index``: which pattern of the list; ``text``: what matched; ``before``: what was said between
    the last match and this one; ``match``: the match object (None with ``exact=True``).
    """

    index: int
    text: str
    before: str
    match: re.Match[str] | None = None

    @property
    def groups(self) -> tuple[str | None, ...]:
        """The groups of the pattern; those that took no part are None."""
        return self.match.groups() if self.match else ()

    def group(self, group: int | str = 0) -> str | None:
        """One group, by its number or name; 0 is all that matched."""
        if self.match is None:
            if group != 0:
                raise IndexError("an exact match has no groups")
            return self.text
        found: str | None = self.match.group(group)
        return found


def search(
    capture: Capture, patterns: Patterns, *, timeout: float | None, exact: bool = False
) -> Match:
    """Wait for the first match after the capture's cursor, and move the cursor behind it.

    Raises ExpectTimeout, ConsoleClosed, or the error with which the target's owner ended it.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    wanted = [patterns] if isinstance(patterns, str | re.Pattern) else list(patterns)
    with capture.follow() as follower:
        spawn = _Captured(follower, deadline)
        searcher = _searcher(spawn, wanted, exact=exact)
        names = [p if isinstance(p, str) else p.pattern for p in wanted]
        expecter = _Lookback(spawn, searcher)
        try:
            index = expecter.expect_loop(None)
        except pexpect.TIMEOUT:
            seen = capture.tail(40, since=follower.start)
            raise ExpectTimeout(names, timeout=timeout or 0.0, seen=seen) from None
        except pexpect.EOF:
            seen = capture.tail(40, since=follower.start)
            raise ConsoleClosed(names, seen=seen) from None
        found = expecter.window[searcher.start : searcher.end]
        end = follower.position - len(expecter.window[searcher.end :].encode())
        before = capture.between(follower.start, end - len(found.encode()))
        capture.cursor = end
    match = searcher.match if isinstance(searcher.match, re.Match) else None
    return Match(index=index, text=found, before=before, match=match)


def _searcher(
    spawn: SpawnBase, wanted: list[Pattern], *, exact: bool
) -> searcher_re | searcher_string:
    if not wanted:
        raise ValueError("expect() needs a pattern")
    for pattern in wanted:
        if not isinstance(pattern, str if exact else str | re.Pattern):
            kinds = "a string" if exact else "a string or a compiled pattern of strings"
            raise TypeError(f"expect() wants {kinds}, not {pattern!r}")
    if exact:
        return searcher_string(wanted)
    return searcher_re(spawn.compile_pattern_list(wanted))


class _Captured(SpawnBase):  # type: ignore[misc]
    """What pexpect takes for a child process: the text of a capture."""

    def __init__(self, follower: Follower, deadline: float | None) -> None:
        super().__init__(encoding="utf-8")
        self.delayafterread = None
        self._follower = follower
        self._deadline = deadline

    def read_nonblocking(self, _size: int = 1, _timeout: float | None = None) -> str:
        """The next text. The deadline is ours: pexpect's uses the wall clock."""
        try:
            return self._follower.more(self._deadline)
        except TimeoutError:
            raise pexpect.TIMEOUT("") from None
        except EOFError:
            raise pexpect.EOF("") from None


class _Lookback(Expecter):  # type: ignore[misc]
    """pexpect's loop over a window of bounded size."""

    def __init__(self, spawn: _Captured, searcher: searcher_re | searcher_string) -> None:
        super().__init__(spawn, searcher)
        self.window = ""
        self._keep = (self.lookback - 1) if self.lookback else LOOKBACK

    def existing_data(self) -> int | None:
        # Nothing special: the follower gives first what is there already.
        return None

    def new_data(self, data: str) -> int | None:
        self.window = (self.window[-self._keep :] if self._keep > 0 else "") + data
        index: int = self.searcher.search(self.window, len(data), None)
        return index if index >= 0 else None
