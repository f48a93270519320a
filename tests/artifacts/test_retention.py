"""Removing old runs, while others do the same or still write."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.artifacts import index
from pytest_hil.artifacts.retention import prune, remove_all
from pytest_hil.artifacts.store import Run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / ".hil"


def old_run(root: Path, name: str) -> None:
    """A finished run that has kept a failed test's machine."""
    machine = root / "runs" / name / "t" / "machine"
    machine.mkdir(parents=True)
    (machine / "memory").write_bytes(b"x" * 1000)
    (root / "runs" / name / "run.json").write_text(json.dumps({"status": "finished"}))


def ids(root: Path) -> list[str]:
    return [run.id for run in index.runs(root)]


def test_the_newest_are_kept(root: Path) -> None:
    for number in range(8):
        old_run(root, f"run{number}")
    assert prune(root, keep=3) == ["run4", "run3", "run2", "run1", "run0"]
    assert ids(root) == ["run7", "run6", "run5"]
    assert prune(root, keep=3) == []


@pytest.mark.parametrize("keep", [1, 0, -3])
def test_at_least_one_is_kept(root: Path, keep: int) -> None:
    for number in range(3):
        old_run(root, f"run{number}")
    prune(root, keep)
    assert ids(root) == ["run2"]


def test_nothing_to_prune(root: Path) -> None:
    assert prune(root) == []
    assert remove_all(root) == []


def test_a_run_that_goes_on_is_never_removed(root: Path) -> None:
    run = Run.create(root)
    for number in range(3):
        old_run(root, f"3000-run{number}")
    assert prune(root, keep=1) == ["3000-run1", "3000-run0"]
    assert remove_all(root) == ["3000-run2"]
    assert ids(root) == [run.id]
    run.finish()
    assert remove_all(root) == [run.id]
    assert list((root / "runs").iterdir()) == []


def test_many_at_once_remove_each_run_once(root: Path) -> None:
    for number in range(40):
        old_run(root, f"run{number:02}")
    with ThreadPoolExecutor(8) as pool:
        removed = [name for names in pool.map(lambda _: prune(root, 5), range(8)) for name in names]
    assert sorted(removed) == [f"run{number:02}" for number in range(35)]
    assert len(ids(root)) == 5
    assert len(list((root / "runs").iterdir())) == 5


def test_what_killed_ones_left_is_removed(root: Path) -> None:
    old_run(root, "run1")
    old_run(root, ".removing-run0-77")
    old_run(root, ".making-78-1")
    old_run(root, ".making-79-1")
    os.utime(root / "runs" / ".making-79-1", (0, 0))
    prune(root)
    # A young one may still be being made.
    assert {path.name for path in (root / "runs").iterdir()} == {"run1", ".making-78-1"}


def test_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").touch()
    (tmp_path / "runs" / "link").symlink_to(elsewhere)
    assert remove_all(tmp_path) == ["link"]
    assert (elsewhere / "precious").exists()
    assert list((tmp_path / "runs").iterdir()) == []
