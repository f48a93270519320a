"""What 64 machines take of the host's memory while all of them live and answer."""

from __future__ import annotations

import contextlib

from pytest_hil.errors import NoRoom
from tests.benchmarks import memory
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_most, line

_COUNT = 64
_LIMIT = 4e9


def measure(context: Context) -> list[Line]:
    context.ready()
    if memory.available() < _LIMIT * 1.25:
        raise NoRoom(
            f"alive: {memory.available() / 1e9:.1f} GB of memory are available, "
            f"{_LIMIT * 1.25 / 1e9:g} GB are wanted before {_COUNT} machines are started"
        )
    rounds = context.times(3, 1)
    taken = [_taken(context, f"{number + 1} of {rounds}") for number in range(rounds)]
    return [line("alive", taken, "MB", at_most(_LIMIT / 1e6))]


def _taken(context: Context, which: str) -> float:
    """MB that are available no more. What else begins or ends on the host counts too."""
    with contextlib.ExitStack() as machines:
        before = memory.available()
        guests = []
        for number in range(_COUNT):
            context.tell(f"alive: {which}: machine {number + 1} of {_COUNT}")
            guests.append(machines.enter_context(contextlib.closing(context.fresh()[0])))
        for guest in guests:
            guest.run("true")
        return (before - memory.available()) / 1e6
