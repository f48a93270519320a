"""Removing old runs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pytest_hil.artifacts.index import RunRecord, runs
from pytest_hil.artifacts.store import MAKING

KEEP: Final = 5
_REMOVING: Final = ".removing-"
# A run that is being made is complete within milliseconds; its maker was killed if it is not.
_MAKING_SECONDS: Final = 3600.0


OnTrouble = Callable[[OSError], object]


def prune(
    root: Path, keep: int = KEEP, *, on_trouble: OnTrouble = lambda _error: None
) -> list[str]:
    """Remove all runs but the newest ``keep`` (at least one); the ids of those that were removed.

    A run that still goes on is never removed. Any number of processes may do this at once: each
    run is renamed first, which only one of them can, and what a killed one left half removed
    is removed by the next. A run that cannot be read or removed stays, and is not in the result;
    ``on_trouble`` is told why.
    """
    return _remove_some(root, max(1, keep), on_trouble)


def remove_all(root: Path, *, on_trouble: OnTrouble = lambda _error: None) -> list[str]:
    """Remove all runs that do not still go on; the ids of those that were removed."""
    return _remove_some(root, 0, on_trouble)


def _remove_some(root: Path, keep: int, on_trouble: OnTrouble) -> list[str]:
    try:
        _remove_leftovers(root / "runs", on_trouble)
        old = runs(root)[keep:]
    except OSError as error:
        on_trouble(error)
        return []
    removed = []
    for run in old:
        try:
            if not run.alive and remove(run):
                removed.append(run.id)
        except OSError as error:
            on_trouble(error)
    return removed


def remove(run: RunRecord) -> bool:
    """Remove one run with all that is in it; False when somebody else did.

    Raises OSError when something of it stays.
    """
    doomed = run.path.with_name(f"{_REMOVING}{run.id}-{os.getpid()}")
    try:
        run.path.rename(doomed)
    except FileNotFoundError:
        return False
    _remove_tree(doomed)
    return True


def _remove_leftovers(parent: Path, on_trouble: OnTrouble) -> None:
    for path in parent.iterdir() if parent.is_dir() else ():
        if path.name.startswith(_REMOVING) or (
            path.name.startswith(MAKING) and _age(path) > _MAKING_SECONDS
        ):
            try:
                _remove_tree(path)
            except OSError as error:
                on_trouble(error)


def _remove_tree(path: Path) -> None:
    """Remove as much of it as can be. Raises OSError when something stays."""
    if path.is_symlink():  # what it leads to is none of ours
        path.unlink(missing_ok=True)
        return
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():  # once more, to learn why
        try:
            shutil.rmtree(path)
        except FileNotFoundError:  # another process is at it
            pass
        except OSError as error:
            error.filename = str(path)  # it may be the name of something in it
            raise


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0
