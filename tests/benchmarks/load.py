"""What the plugin costs a run that has no test for it: the same run with it and without it.

A pytest that is told of a plugin looks for it in the lists of all installed packages, as one that
loads whatever is installed does. So that it does the same on both sides, the run without ours is
told of an empty module.
"""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_most, line, milliseconds

_FILES = {"test_load.py": "def test_nothing():\n    pass\n", "empty.py": ""}


def measure(context: Context) -> list[Line]:
    def run(plugin: str) -> float:
        return run_pytest(context.scratch / "load", _FILES, plugins=(plugin,))

    kinds = ["pytest_hil.plugin", "empty"]
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        run(kind)  # compiles it
    rounds = context.times(40, 8)
    for number in range(rounds):
        context.tell(f"load: {number + 1} of {rounds}")
        for kind in kinds:
            found[kind].append(run(kind))
        # Each goes first as often as the other: what drifts on the host meets both.
        kinds.reverse()
    ours, bare = (milliseconds(found[kind]) for kind in ("pytest_hil.plugin", "empty"))
    return [line("load", ours, "ms", at_most(30, "over peer"), peer=bare)]
