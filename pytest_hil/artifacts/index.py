"""What runs and tests there are, from the disk: also those that were killed or still go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from pytest_hil import process
from pytest_hil.artifacts.store import FINISHED, RUNNING
from pytest_hil.errors import ConfigError, nearest

Status = Literal["running", "finished", "interrupted"]
LATEST: Final = "latest"


@dataclass(frozen=True, slots=True)
class TestRecord:
    """One test on one target. ``outcome`` is None while it runs and when it was interrupted."""

    path: Path
    nodeid: str
    target: str
    status: Status
    outcome: str | None
    start: str
    duration: float | None
    worker: str
    meta: dict[str, Any]

    __test__ = False


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. ``start`` and ``end`` are ISO 8601, UTC; "" when they are not known."""

    path: Path
    id: str
    status: Status
    start: str
    end: str
    argv: tuple[str, ...]
    targets: tuple[str, ...]
    facts: dict[str, Any]

    def tests(self) -> list[TestRecord]:
        """Its tests, in the order in which they began."""
        records = [test_at(path) for path in directories(self.path) if path.name != "coverage"]
        return sorted(records, key=lambda record: (record.start, record.path.name))

    @property
    def alive(self) -> bool:
        """Whether somebody may still write to it: its owner, or a worker that outlived it."""
        return self.status == "running" or any(t.status == "running" for t in self.tests())


def runs(root: Path) -> list[RunRecord]:
    """All runs under ``root`` (``.hil``), the newest first; empty when there are none."""
    return [run_at(path) for path in sorted(directories(root / "runs"), reverse=True)]


def find_run(root: Path, wanted: str = LATEST) -> RunRecord:
    """The run with this id, or the beginning of it, or the latest; ConfigError if there is none."""
    known = runs(root)
    if not known:
        raise ConfigError(
            str(root), "there are no runs here", mend="pytest --hil-target=… makes one"
        )
    if wanted == LATEST:
        return known[0]
    found = [run for run in known if run.id == wanted] or [
        run for run in known if run.id.startswith(wanted)
    ]
    if len(found) == 1:
        return found[0]
    ids = [run.id for run in found or known]
    what = f"{len(found)} runs begin with" if found else "there is no run"
    raise ConfigError(str(root), f"{what} {wanted!r}", mend=nearest(wanted, ids))


def find_tests(run: RunRecord, wanted: str) -> list[TestRecord]:
    """The tests whose node id or directory is ``wanted``; if none is, those in which it occurs."""
    tests = run.tests()
    exact = [t for t in tests if wanted in (t.nodeid, t.path.name, f"{t.nodeid}@{t.target}")]
    return exact or [
        t for t in tests if wanted in f"{t.nodeid}@{t.target}" or wanted in t.path.name
    ]


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, without lines that are not whole (a killed writer's)."""
    try:
        with path.open("rb") as file:
            for line in file:
                content = parse(line)
                if content is not None:
                    yield content
    except (FileNotFoundError, NotADirectoryError):
        return


def run_at(path: Path) -> RunRecord:
    """The run whose directory this is."""
    facts = _read(path / "run.json")
    return RunRecord(
        path=path,
        id=path.name,
        status=_status(facts),
        start=str(facts.get("start", "")),
        end=str(facts.get("end", "")),
        argv=_strings(facts.get("argv")),
        targets=_strings(facts.get("targets")),
        facts=facts,
    )


def test_at(path: Path) -> TestRecord:
    """The test whose directory this is."""
    meta = _read(path / "meta.json")
    outcome, duration = meta.get("outcome"), meta.get("duration")
    return TestRecord(
        path=path,
        nodeid=str(meta.get("nodeid", path.name)),
        target=str(meta.get("target", "")),
        status=_status(meta),
        outcome=outcome if isinstance(outcome, str) else None,
        start=str(meta.get("start", "")),
        duration=float(duration) if isinstance(duration, int | float) else None,
        worker=str(meta.get("worker", "")),
        meta=meta,
    )


def _status(facts: dict[str, Any]) -> Status:
    if facts.get("status") == FINISHED:
        return "finished"
    pid, started = facts.get("pid"), facts.get("pid_started")
    alive = (
        facts.get("status") == RUNNING
        and isinstance(pid, int)
        and started is not None
        and process.start_time(pid) == started
    )
    return "running" if alive else "interrupted"


def directories(parent: Path) -> list[Path]:
    """The directories in a directory, without hidden ones (those being made or removed)."""
    try:
        return [p for p in parent.iterdir() if not p.name.startswith(".") and p.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _read(path: Path) -> dict[str, Any]:
    try:
        return parse(path.read_bytes()) or {}
    except OSError:
        return {}


def parse(data: bytes) -> dict[str, Any] | None:
    """A JSON object; None if it is none, or not whole."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _strings(value: object) -> tuple[str, ...]:
    return tuple(str(v) for v in value) if isinstance(value, list) else ()
