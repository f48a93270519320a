"""What each test needs, told to xdist's controller, which collects nothing; and its answers.

Both are small files in a directory of the controller's: a message of xdist's that comes after one
was written finds it. A worker writes ``gw0.needs`` before it says what it has collected; the
controller adds a line to ``gw0.boards`` before it sends a test for which it means a certain board.
Who finds nothing there does without.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_hil.errors import ConfigError
from pytest_hil.plugin import chosen, marker
from pytest_hil.plugin.selection import describe, uses_target, wanted_of, why_not

# The directory, in what xdist gives its workers.
DIRECTORY = "hil_schedule"

Needs = list[frozenset[str]]

_MEANT = pytest.StashKey["Meant"]()


def boards_of(item: pytest.Item) -> frozenset[str]:
    """The boards of which a test needs one; none when it needs no board, or will not run."""

    from pytest_hil.config import BoardTarget, PoolTarget

    if not uses_target(item) or item.get_closest_marker("skip") or why_not(item):
        return frozenset()
    wanted = wanted_of(item)
    if wanted is None:
        # As the fixture will do it, for a test that pytest does not parametrise.
        wish = marker.wish_of(item)
        names = chosen.names(item.config)
        name = next((one for one in names if wish.targets is None or one in wish.targets), None)
        if name is None:
            return frozenset()
        try:
            wanted = describe(item.config, name, wish)
        except ConfigError:
            return frozenset()
    if isinstance(wanted.target, PoolTarget):
        return frozenset(one.name for one in wanted.target.fitting(wanted.features))
    if isinstance(wanted.target, BoardTarget):
        return frozenset((wanted.target.name,))
    return frozenset()


def write(directory: Path, worker: str, items: Sequence[pytest.Item]) -> None:
    """Tell the controller what these tests need."""
    kinds: dict[frozenset[str], int] = {}
    tests = [kinds.setdefault(boards_of(item), len(kinds)) for item in items]
    text = json.dumps({"kinds": [sorted(kind) for kind in kinds], "tests": tests})
    with contextlib.suppress(OSError):
        _path(directory, worker).write_text(text)


def read(directory: Path, worker: str, count: int) -> Needs:
    """What a worker's tests need; nothing when it did not say so for that many."""
    try:
        found = json.loads(_path(directory, worker).read_text())
        kinds = [frozenset(kind) for kind in found["kinds"]]
        needs = [kinds[number] for number in found["tests"]]
    except (OSError, ValueError, LookupError, TypeError):
        needs = []
    return needs if len(needs) == count else [frozenset()] * count


def _path(directory: Path, worker: str) -> Path:
    return directory / f"{worker}.needs"


def tell(directory: Path, worker: str, test: int, board: str) -> None:
    """Tell a worker which board is meant for a test, which is sent to it after this."""
    with contextlib.suppress(OSError), (directory / f"{worker}.boards").open("a") as file:
        file.write(f"{test} {board}\n")


class Meant:
    """A worker's view of the boards that are meant for its tests."""

    def __init__(self, directory: Path, worker: str, items: Sequence[pytest.Item]) -> None:
        self._path = directory / f"{worker}.boards"
        self._numbers = {item: number for number, item in enumerate(items)}
        self._boards: dict[int, str] = {}
        self._read = 0

    def board(self, item: pytest.Item) -> str:
        """ "" when none is meant, or when that is not known."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = file.read()
        except OSError:
            return ""
        whole, _, _ = lines.rpartition(b"\n")
        for line in whole.decode().splitlines():
            number, _, board = line.partition(" ")
            self._boards[int(number)] = board
        self._read += len(whole) + bool(whole)
        return self._boards.get(self._numbers.get(item, -1), "")


def listen(config: pytest.Config, directory: Path, worker: str, items: list[pytest.Item]) -> None:
    """In a worker: look there for what is meant for its tests."""
    config.stash[_MEANT] = Meant(directory, worker, items)


def meant_for(item: pytest.Item) -> str:
    """The board that xdist's controller means for a test; "" if it means none."""
    found = item.config.stash.get(_MEANT, None)
    return "" if found is None else found.board(item)
