"""What somebody sees who sits before a test that takes long."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pexpect  # type: ignore[import-untyped]
import pytest

from pytest_hil.plugin.live import duration


@pytest.mark.machine
def test_a_test_that_takes_long(inner: Any, tmp_path: Path) -> None:
    inner.write(
        """
import pytest
@pytest.mark.parametrize("number", range(2))
def test_it(hil, number):
    # Again and again: the kernel may have something to say in between.
    hil.run("for n in 1 2 3 4 5; do echo on its way > /dev/ttyS0; sleep 1; done")
"""
    )
    terminal = pexpect.spawn(
        sys.executable,
        ["-m", "pytest", "--hil-target=qemu", "-n", "1", "-p", "no:cacheprovider", "--rootdir=."],
        cwd=str(inner.directory),
        env={**os.environ, "TERM": "xterm", "PYTEST_HIL_CACHE": str(inner.cache)},
        dimensions=(30, 120),
        timeout=240,
        encoding="utf-8",
    )
    terminal.expect(r"hil gw0: qemu: test_inner.py::test_it\[0\], \d+ s: on its way")
    terminal.expect(r"hil gw0: qemu: test_inner.py::test_it\[1\], \d+ s: on its way")
    terminal.expect("hil: 1 of 2 tests")
    terminal.expect("2 passed")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 0


def test_durations() -> None:
    assert [duration(n) for n in (0, 1.4, 59, 61, 3500, 3600, 7500)] == [
        *("1 s", "1 s", "59 s", "1 min", "58 min", "1 h 0 min", "2 h 5 min")
    ]
