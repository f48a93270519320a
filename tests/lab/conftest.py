"""A lab of the test's own, and processes that use it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.lab.lease import Lab

Start = Callable[..., "subprocess.Popen[str]"]
"""``start(script, *arguments)``: a process, whose first argument is the lab's directory."""

ROOT = Path(__file__).parents[2]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path / "lab")


@pytest.fixture
def start(lab: Lab) -> Iterator[Start]:
    """Those that still run at the test's end are killed."""
    started: list[subprocess.Popen[str]] = []

    def run(script: str, *arguments: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(lab.directory), *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(child)
        return child

    yield run
    for child in started:
        child.kill()
        child.communicate()


@pytest.fixture
def queued(lab: Lab) -> Callable[[int], None]:
    """``queued(3)`` returns when three wait."""

    def wait(number: int) -> None:
        deadline = time.monotonic() + 30
        while len(lab.queue()) != number:
            assert time.monotonic() < deadline, f"{len(lab.queue())} wait, not {number}"
            time.sleep(0.002)

    return wait
