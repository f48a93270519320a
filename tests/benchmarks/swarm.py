"""Sixteen machines asked for at the same moment, until the last has answered a command.

And the memory that each then has for itself: pages that it wrote to and shares with nobody.
"""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from pytest_hil.qemu.guest import Guest
from tests.benchmarks import memory
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_most, line

_COUNT = 16


def measure(context: Context) -> list[Line]:
    context.ready()
    rounds = context.times(5, 2)
    walls, sizes = [], []
    with ThreadPoolExecutor(_COUNT) as pool:
        for number in range(rounds):
            context.tell(f"swarm: {number + 1} of {rounds}")
            wall, biggest = _swarm(context, pool)
            walls.append(wall)
            sizes.append(biggest / 1e6)
    return [
        line("swarm", walls, "s", at_most(1.6)),
        line("swarm-memory", sizes, "MB", at_most(45)),
    ]


def _swarm(context: Context, pool: ThreadPoolExecutor) -> tuple[float, int]:
    """Seconds for all, and the bytes of the one that has most."""
    start = threading.Barrier(_COUNT + 1)

    def one() -> Guest:
        start.wait()
        return context.fresh()[0]

    with contextlib.ExitStack() as machines:
        machines.callback(start.abort)  # whatever happens here, nobody waits for it for ever
        futures = [pool.submit(one) for _ in range(_COUNT)]
        start.wait()
        began = time.perf_counter()
        guests = [machines.enter_context(contextlib.closing(future.result())) for future in futures]
        wall = time.perf_counter() - began
        return wall, max(memory.private_dirty(one.machine.process.pid) for one in guests)
