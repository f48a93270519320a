"""One command on a machine that is there: ours through the agent, the peer's over the console."""

from __future__ import annotations

import contextlib
import time

from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, at_most, line, milliseconds

# The first commands of a machine also pay for what it runs for the first time, on either side.
_WARM_UP = 5


def measure(context: Context) -> list[Line]:
    rounds = context.times(100, 20)
    ours, peer = [], []
    context.tell("run: booting the peer's machine")
    context.peer.open()
    guest, _ = context.fresh(context.ready())
    with contextlib.closing(guest):
        for number in range(-_WARM_UP, rounds):
            context.tell(f"run: {number + 1} of {rounds}")
            began = time.perf_counter()
            guest.run("true")
            ours.append(time.perf_counter() - began)
            peer.append(context.peer.run())
    context.peer.close_machine()
    ours, peer = milliseconds(ours[_WARM_UP:]), milliseconds(peer[_WARM_UP:])
    return [line("run", ours, "ms", at_most(8), at_least(4, "ratio"), peer=peer)]
