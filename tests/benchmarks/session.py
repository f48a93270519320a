"""How many tests with a fresh machine each a whole run of pytest does in a minute, on two workers.

The clock runs from the start of pytest to its exit. The tests do next to nothing: what is measured
is what their machines cost.
"""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_least, line

_TESTS = 300
_TEST = f"""\
import pytest

@pytest.mark.parametrize("number", range({_TESTS}))
def test_machine(hil, number):
    assert hil.run("echo x").stdout == "x\\n"
"""


def measure(context: Context) -> list[Line]:
    context.ready()
    rounds = context.times(3, 1)
    rates = []
    for number in range(rounds):
        context.tell(f"session: {number + 1} of {rounds}: {_TESTS} tests on two workers")
        seconds = run_pytest(
            context.scratch / "session",
            {"test_session.py": _TEST},
            *("--hil-target=qemu", "-n", "2"),
            plugins=("xdist.plugin", "pytest_hil.plugin"),
        )
        rates.append(_TESTS * 60 / seconds)
    return [line("session", rates, "tests/min", at_least(500), more_is_better=True)]
