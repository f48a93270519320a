"""What the plugin costs a run that has no test for it: the same run with it and without it."""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_most, line, milliseconds

_TEST = "def test_nothing():\n    pass\n"


def measure(context: Context) -> list[Line]:
    directory = context.scratch / "load"

    def run(*plugins: str) -> float:
        return run_pytest(directory, {"test_load.py": _TEST}, plugins=plugins)

    run(), run("pytest_hil.plugin")
    rounds = context.times(30, 8)
    ours, bare = [], []
    for number in range(rounds):
        context.tell(f"load: {number + 1} of {rounds}")
        # Each goes first as often as the other: whatever drifts on the host hits both.
        if number % 2:
            bare.append(run())
            ours.append(run("pytest_hil.plugin"))
        else:
            ours.append(run("pytest_hil.plugin"))
            bare.append(run())
    bound = at_most(30, "over peer")
    return [line("load", milliseconds(ours), "ms", bound, peer=milliseconds(bare))]
