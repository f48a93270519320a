"""A glimpse of the fuzzer, so that it keeps working; scripts/fuzz-agent runs it for longer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz-agent"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc with its sanitizers")
def test_the_agent_survives_a_little_fuzzing(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--seconds", "3", "--seed", "1"]
    done = subprocess.run(
        [*command, "--corpus", str(tmp_path)], capture_output=True, text=True, check=False
    )
    if done.returncode == 3:
        pytest.skip("needs root or user namespaces")
    assert done.returncode == 0, done.stderr
    found = re.fullmatch(r"(\d+) runs, (\d+) inputs, (\d+) edges, (\d+) answers\n", done.stdout)
    assert found, done.stdout
    # That the seeds reach the operations: far fewer edges mean that it fuzzes a closed door.
    assert int(found[3]) > 500
