"""What changed from one run to another, test by test."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Final

from pytest_hil.artifacts.report.gather import BAD, Test

# A test is slower when it took this many times as long, and at least so many seconds longer.
SLOWER: Final = 1.5
SLOWER_BY: Final = 0.5
# With fewer tests in both runs than that, nothing is known about the hosts' speed.
_ENOUGH: Final = 8

_DONE: Final = frozenset({"passed", "xpassed"})


@dataclass(frozen=True, slots=True)
class Change:
    """A test on a target, and what became of it in either run ("": it was not in it)."""

    nodeid: str
    target: str
    before: str
    after: str
    reason: str = ""
    seconds: tuple[float, float] | None = None


@dataclass(slots=True)
class Difference:
    """``pace``: how many times as long the median test took that passed in both runs.

    ``new`` fails now and did not before; ``fixed`` the other way round; ``still`` fails in both.
    ``flaky`` failed and passed within one of the runs.
    """

    new: list[Change] = field(default_factory=list)
    fixed: list[Change] = field(default_factory=list)
    still: list[Change] = field(default_factory=list)
    flaky: list[Change] = field(default_factory=list)
    slower: list[Change] = field(default_factory=list)
    added: list[Change] = field(default_factory=list)
    removed: list[Change] = field(default_factory=list)
    pace: float = 1.0


def difference(
    before: Iterable[Test],
    after: Iterable[Test],
    *,
    slower: float = SLOWER,
    slower_by: float = SLOWER_BY,
) -> Difference:
    """Compare two runs. ``slower``: the factor, beside the runs' own pace, from which it counts."""
    old, new = _by_test(before), _by_test(after)
    found = Difference(pace=_pace(old, new))
    for key in dict.fromkeys((*new, *old)):
        was, now = old.get(key, ()), new.get(key, ())
        change = _change(key, was, now)
        was_bad, is_bad = change.before in BAD, change.after in BAD
        if _flaky(was) or _flaky(now):
            found.flaky.append(change)
        if is_bad:
            (found.still if was_bad else found.new).append(change)
        elif was_bad and change.after in _DONE:
            found.fixed.append(change)
        if not was:
            found.added.append(change)
        elif not now:
            found.removed.append(change)
        elif _is_slower(change, found.pace, slower, slower_by):
            found.slower.append(change)
    found.slower.sort(key=lambda one: -_longer(one))
    return found


def _by_test(tests: Iterable[Test]) -> dict[tuple[str, str], Sequence[Test]]:
    found: dict[tuple[str, str], list[Test]] = {}
    for test in tests:
        found.setdefault((test.nodeid, test.target), []).append(test)
    return {**found}


def _change(key: tuple[str, str], was: Sequence[Test], now: Sequence[Test]) -> Change:
    seconds = None
    if was and now:
        durations = was[-1].duration, now[-1].duration
        passed = was[-1].outcome in _DONE and now[-1].outcome in _DONE
        if passed and durations[0] is not None and durations[1] is not None:
            seconds = (durations[0], durations[1])
    last = now[-1] if now else None
    reason = ""
    if last is not None:
        reason = last.crashes[0].title if last.crashes and last.bad else last.reason
    return Change(*key, _outcome(was), _outcome(now), reason, seconds)


def _outcome(tries: Sequence[Test]) -> str:
    """A test's: its last try's. One that was to be tried again and never was, failed."""
    if not tries:
        return ""
    return "failed" if tries[-1].outcome == "rerun" else tries[-1].outcome


def _flaky(tries: Sequence[Test]) -> bool:
    outcomes = {test.outcome for test in tries}
    return bool(outcomes & _DONE) and bool(outcomes & (BAD | {"rerun"}))


def _pace(
    old: Mapping[tuple[str, str], Sequence[Test]], new: Mapping[tuple[str, str], Sequence[Test]]
) -> float:
    """A host that was busier makes all tests slower: that is none of any test's doing."""
    ratios = []
    for key in old.keys() & new.keys():
        seconds = _change(key, old[key], new[key]).seconds
        if seconds is not None and seconds[0] > 0:
            ratios.append(seconds[1] / seconds[0])
    return max(1.0, median(ratios)) if len(ratios) >= _ENOUGH else 1.0


def _is_slower(change: Change, pace: float, factor: float, least: float) -> bool:
    if change.seconds is None:
        return False
    was = change.seconds[0] * pace
    return change.seconds[1] > was * factor and change.seconds[1] - was >= least


def _longer(change: Change) -> float:
    return change.seconds[1] - change.seconds[0] if change.seconds else 0.0
