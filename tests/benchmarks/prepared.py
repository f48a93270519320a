"""What a test waits for its machine when the one before took 100 ms: as the fixture sees it.

From the first of the test's set-up to the first answered command, in the real pytest. The next
machine is made ready while a test runs, so that it is there when it is asked for.
"""

from __future__ import annotations

from tests.benchmarks.context import Context
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_most, line, milliseconds

_CONFTEST = """\
import time
import pytest

BEGAN = pytest.StashKey()

@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item):
    item.stash[BEGAN] = time.perf_counter()
    return (yield)

@pytest.fixture
def began(request):
    return request.node.stash[BEGAN]
"""

_TEST = """\
import time
import pytest

@pytest.mark.parametrize("number", range({count}))
def test_machine(hil, began, number):
    hil.run("true")
    seconds = time.perf_counter() - began
    with open("seconds", "a") as file:
        print(seconds, file=file)
    time.sleep(0.1)
"""


def measure(context: Context) -> list[Line]:
    context.ready()
    count = context.times(100, 20)
    context.tell(f"prepared: {count} tests of 100 ms")
    directory = context.scratch / "prepared"
    files = {"conftest.py": _CONFTEST, "test_prepared.py": _TEST.format(count=count)}
    run_pytest(directory, files, "--hil-target=qemu", plugins=("pytest_hil.plugin",))
    seconds = [float(word) for word in (directory / "seconds").read_text().split()]
    return [line("prepared", milliseconds(seconds), "ms", at_most(20))]
