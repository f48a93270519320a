"""Python on a target, under coverage.py: on an emulated board, over its serial line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.lab.lease import DIRECTORY
from pytest_hil.rig.rig import Rig

PROGRAM = """\
import sys

def sign(value):
    if value < 0:
        return -1
    return 1

def never():
    return 2

print(sign(int(sys.argv[1])))
"""

TESTS = f"""
import pytest

@pytest.mark.parametrize("value", [-3, 3])
def test_sign(hil, value):
    hil.run("mkdir -p /tmp/app")
    hil.put("program.py", "/tmp/app/program.py")
    hil.run(["{sys.executable}", "-m", "coverage", "run", "/tmp/app/program.py", str(value)])
    assert "program.py" in hil.run("{sys.executable} -m coverage report").stdout

def test_damaged(hil):
    hil.run("mkdir -p $(dirname $COVERAGE_FILE); echo nothing > $COVERAGE_FILE")
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "test_it.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text("[pytest]\nhil_cov_map =\n    /tmp/app=.\n")
    return tmp_path


@pytest.mark.skipif(
    sys.prefix.startswith("/tmp/"),
    reason="a light board has a /tmp of its own, without this Python",
)
def test_lines_that_ran_on_a_board(place: Path) -> None:
    with Rig(boards=1) as rig:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p"),
                *("no:hypothesispytest", f"--hil-boards={rig.boards_toml}", "--hil-target=rig"),
                *("--hil-cov=program.py", "--hil-cov-report=term", "--hil-cov-report=json:r.json"),
            ],
            cwd=place,
            env={**os.environ, **rig.environment, DIRECTORY: str(place / "lab")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    said = done.stdout + done.stderr
    assert "3 passed" in said, said
    assert "cannot be read" in said  # and the rest is counted all the same
    (file,) = json.loads((place / "r.json").read_text())["files"]
    assert file["path"] == "program.py"
    lines = {int(line): count for line, count in file["lines"].items()}
    # Once for each test that ran it, however often the data file was fetched.
    assert lines == {1: 2, 3: 2, 4: 2, 5: 1, 6: 1, 8: 2, 9: 0, 11: 2}
    reached = {test: own for test, own in file["reached_by"].items() if 5 in own}
    assert len(reached) == 1
