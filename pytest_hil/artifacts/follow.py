"""A run that goes on, as its directory tells of it: what has ended, and what runs now."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pytest_hil.artifacts import index
from pytest_hil.artifacts.index import RunRecord
from pytest_hil.console.stream import TextStream

# As much of a console's end as may hold its last line, in bytes.
_LAST = 4096


@dataclass(frozen=True, slots=True)
class Running:
    """A test that runs now. ``seconds``: for how long; ``said``: its console's last line."""

    worker: str
    target: str
    nodeid: str
    seconds: float
    said: str


class Follower:
    """Looks at one run again and again, and reads only what is new each time.

    ``counts`` has the outcomes until now; ``total`` is how many tests there are, 0 if unknown.
    """

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self.counts: Counter[str] = Counter()
        self._read = 0
        # Directories of tests that have ended, which say nothing new.
        self._over: set[str] = set()

    @property
    def total(self) -> int:
        found = self.run.facts.get("collected")
        return found if isinstance(found, int) else 0

    def look(self) -> list[dict[str, Any]]:
        """The results (lines of results.jsonl) that came since the last look."""
        # First whether it goes on: what is written until its end is then still read.
        self.run = index.run_at(self.run.path)
        found = []
        try:
            with (self.run.path / "results.jsonl").open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # the rest of it comes
                    self._read += len(line)
                    result = index.parse(line)
                    if result is not None:
                        found.append(result)
        except FileNotFoundError:
            pass
        self.counts.update(str(one.get("outcome")) for one in found)
        return found

    def running(self) -> Sequence[Running]:
        """What runs now, by worker."""
        now = time.time()
        found = []
        for path in index.directories(self.run.path):
            if path.name in self._over:
                continue
            test = index.test_at(path)
            if test.status != "running":
                # One that has only just been made has no meta.json yet.
                if test.meta:
                    self._over.add(path.name)
                continue
            began = _seconds(test.start)
            found.append(
                Running(
                    worker=test.worker,
                    target=test.target,
                    nodeid=test.nodeid,
                    seconds=max(0.0, now - began) if began else 0.0,
                    said=_last_line(path / "console.log"),
                )
            )
        return sorted(found, key=lambda one: (one.worker, one.nodeid))


def _seconds(start: str) -> float:
    try:
        return datetime.fromisoformat(start).timestamp()
    except ValueError:
        return 0.0


def _last_line(path: Path) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _LAST))
            data = file.read()
    except OSError:
        return ""
    stream = TextStream()
    lines = (stream.feed(data) + stream.finish()).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
