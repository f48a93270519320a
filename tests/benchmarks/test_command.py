"""The command: what it lists, what it refuses, what it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "tests.benchmarks", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_it_lists_every_benchmark() -> None:
    done = benchmark("--list")
    assert done.returncode == 0, done.stderr
    names = [row.split()[0] for row in done.stdout.splitlines()]
    assert " ".join(names) == (
        "fresh prepared run put get swarm alive session urb urb-out stick lab lease merge scan "
        "overhead flat load"
    )


def test_a_wrong_name_gets_the_nearest_right_one() -> None:
    done = benchmark("frehs")
    assert done.returncode == 2
    assert "did you mean 'fresh'?" in done.stderr


@pytest.mark.slow
def test_it_writes_what_it_measured_where_the_caller_is(tmp_path: Path) -> None:
    done = benchmark("load", "--quick", "--json", "figures.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = json.loads((tmp_path / "figures.json").read_text())
    assert set(row) == {"name", "ours", "peer", "ratio", "unit", "n"}
    assert (row["name"], row["unit"], row["n"]) == ("load", "ms", 8)
    assert row["peer"] > 0
    assert row["ratio"] == pytest.approx(row["peer"] / row["ours"], rel=0.01)
