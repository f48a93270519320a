"""Whether the processes of a long run grow: 2,000 tests with a fresh machine each, on four workers.

Each process writes down its own memory as it goes. What counts is the second half: whatever is
imported, compiled and cached once has been so by then. The peer is pytest with tests that do
nothing: it keeps a report of each test's three phases.
"""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_most, line

_WORKERS = 4
_CONFTEST = """\
import os
from pathlib import Path

_to = Path(os.environ["FLAT"], os.environ.get("PYTEST_XDIST_WORKER", "controller"))
_tests = 0

def pytest_runtest_logreport(report):
    global _tests
    if report.when == "teardown":
        _tests += 1
        if _tests % 50 == 0:
            status = Path("/proc/self/status").read_text()
            kibibytes = status.partition("RssAnon:")[2].split()[0]
            with _to.open("a") as file:
                file.write(f"{_tests} {kibibytes}\\n")
"""
_TEST = """\
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_machine({fixture}number):
    {body}
"""


def measure(context: Context) -> list[Line]:
    context.ready()
    tests = context.times(2000, 400)

    def run(name: str, fixture: str, body: str, *more: str) -> dict[str, list[tuple[int, int]]]:
        context.tell(f"flat: {tests} tests, {name}")
        to = context.scratch / f"flat-{name}-memory"
        to.mkdir()
        test = _TEST.format(tests=tests, fixture=fixture, body=body)
        run_pytest(
            context.scratch / f"flat-{name}",
            {"conftest.py": _CONFTEST, "test_flat.py": test},
            *("-n", str(_WORKERS), *more),
            plugins=("xdist.plugin", "pytest_hil.plugin") if more else ("xdist.plugin",),
            env={"FLAT": str(to)},
            timeout=1800,
        )
        return {file.name: _read(file) for file in to.iterdir()}

    bare = run("bare", "", "pass")
    found = run("ours", "hil, ", 'assert hil.run("echo x").stdout == "x\\n"', "--hil-target=qemu")
    workers, peers = (
        [_times(each[name]) for name in each if name != "controller"] for each in (found, bare)
    )
    ours, theirs = (_growth(each["controller"]) for each in (found, bare))
    return [
        line("flat", workers, "×", at_most(0.02, "over peer"), peer=peers),
        line("flat-controller", [ours], "KiB/test", at_most(4, "over peer"), peer=[theirs]),
    ]


def _read(file: Path) -> list[tuple[int, int]]:
    """(tests so far, KiB), in this order."""
    rows = (row.split() for row in file.read_text().splitlines())
    return [(int(tests), int(kibibytes)) for tests, kibibytes in rows]


def _halves(rows: list[tuple[int, int]]) -> tuple[tuple[int, int], tuple[int, int]]:
    return rows[len(rows) // 2 - 1], rows[-1]


def _times(rows: list[tuple[int, int]]) -> float:
    """The memory at the end, against that at half of the tests."""
    (_, before), (_, after) = _halves(rows)
    return after / before


def _growth(rows: list[tuple[int, int]]) -> float:
    """KiB a test, in the second half."""
    (begin, before), (end, after) = _halves(rows)
    return (after - before) / (end - begin)
