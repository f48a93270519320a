"""What watching costs a run: crash detection, transcripts and events, against a run without them.

The same tests, each on a fresh machine that says some 140 kB on its console; the peer has a plugin
more, which leaves out just these three.
"""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_least, line

_TESTS = 24
_TEST = f"""\
import pytest

@pytest.mark.parametrize("number", range({_TESTS}))
def test_machine(hil, number):
    for _ in range(3):
        hil.run("dmesg > /dev/console")
    assert hil.run("echo x").stdout == "x\\n"
"""
_BLIND = """\
from pytest_hil.artifacts.store import TestDir
from pytest_hil.console.session import Console
from pytest_hil.crash.detector import Detector

TestDir.events = TestDir.qmp = lambda *words, **facts: None
Console.record = lambda self, to: None
Detector.feed = lambda self, data, at=None: []
"""


def measure(context: Context) -> list[Line]:
    context.ready()

    def run(*more: str) -> float:
        return run_pytest(
            context.scratch / "overhead",
            {"test_overhead.py": _TEST, "blind.py": _BLIND},
            *("--hil-target=qemu", "-n", "2"),
            plugins=("xdist.plugin", "pytest_hil.plugin", *more),
        )

    kinds: list[tuple[str, ...]] = [(), ("blind",)]
    found: dict[tuple[str, ...], list[float]] = {kind: [] for kind in kinds}
    for kind in kinds:
        run(*kind)  # compiles it
    rounds = context.times(12, 3)
    for number in range(rounds):
        context.tell(f"overhead: {number + 1} of {rounds}")
        for kind in kinds:
            found[kind].append(run(*kind))
        # Each goes first as often as the other: what drifts on the host meets both.
        kinds.reverse()
    return [line("overhead", found[()], "s", at_least(0.97, "ratio"), peer=found["blind",])]
