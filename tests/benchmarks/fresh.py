"""From nothing to the first answered command, with no machine prepared in the background.

Ours is cloned from a template that exists; the peer boots. Neither closing the machine before nor
reading the configuration is counted on either side.
"""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, at_most, line, milliseconds

# A boot takes the peer seconds: a clone of ours is measured several times between two of them.
_CLONES_A_BOOT = 4


def measure(context: Context) -> list[Line]:
    context.ready()
    ours, peer = [], []
    rounds = context.times(9, 3)
    for number in range(rounds):
        context.tell(f"fresh: {number + 1} of {rounds}")
        for _ in range(_CLONES_A_BOOT):
            guest, seconds = context.fresh()
            guest.close()
            ours.append(seconds)
        peer.append(context.peer.fresh())
    bounds = at_most(150), at_least(25, "ratio")
    return [line("fresh", milliseconds(ours), "ms", *bounds, peer=milliseconds(peer))]
