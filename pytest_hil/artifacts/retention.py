"""Removing old runs."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Final

from pytest_hil.artifacts.index import RunRecord, runs
from pytest_hil.artifacts.store import MAKING

KEEP: Final = 5
_REMOVING: Final = ".removing-"
# A run that is being made is complete within milliseconds; its maker was killed if it is not.
_MAKING_SECONDS: Final = 3600.0


def prune(root: Path, keep: int = KEEP) -> list[str]:
    """Remove all runs but the newest ``keep`` (at least one); the ids of those that were removed.

    A run that still goes on is never removed. Any number of processes may do this at once: each
    run is renamed first, which only one of them can, and what a killed one left half removed
    is removed by the next. A run that cannot be removed stays, and is not in the result.
    """
    _remove_leftovers(root / "runs")
    old = runs(root)[max(1, keep) :]
    return [run.id for run in old if not run.alive and remove(run)]


def remove_all(root: Path) -> list[str]:
    """Remove all runs that do not still go on; the ids of those that were removed."""
    _remove_leftovers(root / "runs")
    return [run.id for run in runs(root) if not run.alive and remove(run)]


def remove(run: RunRecord) -> bool:
    """Remove one run with all that is in it; False when somebody else did, or it cannot be."""
    doomed = run.path.with_name(f"{_REMOVING}{run.id}-{os.getpid()}")
    try:
        run.path.rename(doomed)
    except OSError:
        return False
    shutil.rmtree(doomed, ignore_errors=True)
    return not doomed.exists()


def _remove_leftovers(parent: Path) -> None:
    try:
        entries = list(parent.iterdir())
    except OSError:
        return
    for path in entries:
        if path.name.startswith(_REMOVING) or (
            path.name.startswith(MAKING) and _age(path) > _MAKING_SECONDS
        ):
            shutil.rmtree(path, ignore_errors=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
