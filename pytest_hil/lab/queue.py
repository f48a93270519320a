"""Who is next: who waits for boards, in which order they get them, and who watches whom.

No files, no clock: facts in, decisions out. The order is by priority, then first come, first
served, and waiting counts: a step of priority is worth :data:`AGE` seconds of it. As everybody
ages alike the order of two who wait never changes, and a late comer of priority p passes only those
who came less than p × AGE seconds before: nobody starves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AGE = 60.0
"""Seconds of waiting that a step of priority is worth."""

PRIORITIES = range(-10, 11)

Process = tuple[str, int, int]
"""A process for good: its pid namespace, pid, and start time in clock ticks since boot."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Who waits for one of ``wants``, the dearest first. ``since``: seconds of a clock that never
    goes back; ``number`` decides between those of one moment. ``keeps``: boards that it has, and
    gives nobody while it waits.
    """

    number: int
    wants: tuple[str, ...]
    since: float
    user: str
    process: Process
    priority: int = 0
    keeps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Board:
    """What matters of a board. ``holder`` is None when it is free; ``reserved``: the only user who
    may take it ("" if all may), until a time of the wall clock in seconds.
    """

    holder: Process | None = None
    reserved: str = ""
    until: float = 0.0

    def is_for(self, user: str) -> bool:
        return self.reserved in ("", user)


@dataclass(frozen=True, slots=True)
class Plan:
    """What somebody who waits does next: takes a board, or watches these processes.

    ``until``: the wall clock's time at which a reservation ends that keeps it from a board.
    """

    take: str | None = None
    watch: frozenset[Process] = frozenset()
    until: float | None = None


FREE = Board()


def order(waiters: Iterable[Waiter]) -> list[Waiter]:
    """Those who wait, the next one first."""
    return sorted(waiters, key=lambda one: (one.since - one.priority * AGE, one.number))


def assign(waiters: Iterable[Waiter], boards: Mapping[str, Board]) -> dict[int, str]:
    """Who takes which board now, by number; a board that is not in ``boards`` is free."""
    taken: set[str] = set()
    found: dict[int, str] = {}
    for waiter in order(waiters):
        for name in waiter.wants:
            board = boards.get(name, FREE)
            if board.holder is None and name not in taken and board.is_for(waiter.user):
                taken.add(name)
                found[waiter.number] = name
                break
    return found


def plans(waiters: Iterable[Waiter], boards: Mapping[str, Board]) -> dict[int, Plan]:
    """What each of them does, by number.

    Those who wait for a board are a line: the first one watches its holder, each further one the
    one before. So a death wakes one or two of them, not all; and however many die at once, the
    first survivor in a line sees the death of whom it watched.
    """
    line = order(waiters)
    takes = assign(line, boards)
    last: dict[str, Process] = {}
    found = {}
    for waiter in line:
        watch, until = set(), None
        for name in waiter.wants:
            board = boards.get(name, FREE)
            if not board.is_for(waiter.user):
                until = board.until if until is None else min(until, board.until)
                continue
            before = last.get(name, board.holder)
            if before is not None:
                watch.add(before)
            last[name] = waiter.process
        found[waiter.number] = Plan(takes.get(waiter.number), frozenset(watch), until)
    return found


def stuck(waiters: Iterable[Waiter]) -> list[Waiter]:
    """Those who would wait for ever: all that each of them wants is kept by others of them."""
    found = list(waiters)
    while True:
        kept = {name for one in found for name in one.keeps}
        rest = [one for one in found if kept.issuperset(one.wants)]
        if len(rest) == len(found):
            return found
        found = rest
