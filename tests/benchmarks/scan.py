"""Looking for crashes in what a console says: our detector, and one regular expression a line.

The text is that of the tests: boots, services, packages, compilers, tests, stress, from a seed.
Processor time of one thread, so that what else happens on the host counts less.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from pytest_hil.crash import Detector
from pytest_hil.crash.rules import BUILTIN
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, line
from tests.crash.ordinary import ordinary

_SIZE = 32_000_000
_SEED = 4
# What everybody writes first: the words that reports begin with, looked for in each line.
_WORDS = sorted({word for rule in BUILTIN for word in (*rule.starts, *rule.needles)})


def measure(context: Context) -> list[Line]:
    context.tell("scan: making the text")
    parts = list(ordinary(_SIZE, _SEED))
    naive = re.compile("|".join(map(re.escape, _WORDS)))

    def ours() -> None:
        detector = Detector()
        for part in parts:
            detector.feed(part)
        detector.finish()

    def theirs() -> None:
        rest = ""
        for part in parts:
            *lines, rest = (rest + part.decode(errors="replace")).split("\n")
            for each in lines:
                naive.search(each)

    rounds = context.times(9, 3)
    found: dict[Callable[[], None], list[float]] = {ours: [], theirs: []}
    for number in range(rounds):
        context.tell(f"scan: {number + 1} of {rounds}")
        for scan, rates in found.items():
            began = time.thread_time()
            scan()
            rates.append(_SIZE / 1e6 / (time.thread_time() - began))
    return [
        line("scan", found[ours], "MB/s", at_least(60), peer=found[theirs], more_is_better=True)
    ]
