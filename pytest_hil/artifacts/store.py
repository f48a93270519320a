"""The artifacts of one run, written while it runs.

::

    .hil/
    ├── .gitignore              "*"
    ├── latest -> runs/…
    └── runs/2026-11-20T22-45-01-abc/
        ├── run.json            when, what was asked for, whose it is, how it ended
        ├── results.jsonl       how each test ended, also those that used no target
        └── tests-test_usb.py--test_plug@qemu/
            ├── meta.json       which test on which target; "running" until it has ended
            ├── console.log, console.jsonl       (see pytest_hil.console.transcript)
            ├── events.jsonl    what happened: one JSON object a line
            └── qmp.jsonl       the talk with QEMU

A run belongs to the process that made it (the xdist controller); workers attach to it by
its path. A test's directory belongs to the process that runs the test. Owners are named by pid and
start time, so that what a killed one left can be told from what is still being written.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pytest_hil import process
from pytest_hil.artifacts.disk import Disk, OnTrouble, quiet, write_json
from pytest_hil.artifacts.names import directory_name, run_id

RUNNING: Final = "running"
FINISHED: Final = "finished"
# A run is made under a name with this prefix and then renamed: what has its name is complete.
MAKING: Final = ".making-"


class Run:
    """One run's directory. Disk trouble is said once to ``on_trouble``, and is never raised."""

    def __init__(self, path: Path, *, on_trouble: OnTrouble = quiet) -> None:
        """Attach to a run that exists, as a worker does; :meth:`create` makes one."""
        self.path = path
        self.id = path.name
        self._disk = Disk(on_trouble)
        self._facts: dict[str, Any] | None = None
        self._lock = threading.Lock()

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        argv: Sequence[str] = (),
        targets: Sequence[str] = (),
        facts: Mapping[str, Any] = {},
        on_trouble: OnTrouble = quiet,
    ) -> Run:
        """Make the directory of a new run under ``root`` (``.hil``), owned by this process.

        ``facts``: what else is to be in its run.json.
        """
        now = datetime.now(UTC)
        root = root.absolute()  # a test may change the working directory
        run = cls(root / "runs" / run_id(now), on_trouble=on_trouble)
        made = run._facts = {
            **facts,
            "start": _iso(now),
            "argv": list(argv),
            "targets": list(targets),
            "workers": [],
            "status": RUNNING,
            **owner(),
        }
        try:
            _prepare_root(root)
            run.path = _publish(root / "runs", made)
            run.id = run.path.name
            _point_latest(root, run.id)
        except OSError as error:
            run._disk.trouble(error)
        return run

    @property
    def error(self) -> OSError | None:
        """The first trouble with the disk in this process, if there was any."""
        return self._disk.error

    def trouble(self, error: OSError) -> None:
        """Trouble of another who writes here (a console's transcript); said if it is first."""
        self._disk.trouble(error)

    def update(self, **facts: Any) -> None:
        """Add to run.json (``workers=[…]``, say); only for the process that made the run."""
        with self._lock:
            if self._facts is None:
                raise RuntimeError("only the process that made a run may change its run.json")
            self._facts.update(facts)
            content = {"id": self.id, **self._facts}
            self._disk.replace(self.path / "run.json", content)

    def finish(self, **facts: Any) -> None:
        """The run has ended by itself."""
        self.update(status=FINISHED, end=_iso(datetime.now(UTC)), **facts)

    @property
    def used(self) -> bool:
        """Whether any test has a directory in it."""
        try:
            return any(entry.is_dir() for entry in self.path.iterdir())
        except OSError:
            return False

    def discard(self) -> None:
        """Remove the run, as if it had never been; only for the process that made it."""
        shutil.rmtree(self.path, ignore_errors=True)
        root = self.path.parents[1]
        with contextlib.suppress(OSError):
            others = sorted(path.name for path in (root / "runs").glob("[!.]*"))
            if others:
                _point_latest(root, others[-1])
            else:
                (root / "latest").unlink(missing_ok=True)

    def test(
        self, nodeid: str, target: str, *, worker: str = "", began: float | None = None
    ) -> TestDir:
        """A directory for a test on a target; nothing is made before something is written.

        ``began``: when the test did, by :func:`time.monotonic`; None: now.
        """
        return TestDir(self, nodeid, target, worker=worker, disk=self._disk, began=began)

    def result(self, **facts: Any) -> None:
        """A test has ended: a line of results.jsonl; only for the process that made the run."""
        self._disk.append_line(self.path / "results.jsonl", facts)


class TestDir:
    """The directory of one test on one target, made when it is first used.

    The same test on another target, and the same test once more, get directories of their own.
    Any thread may write.
    """

    __test__ = False

    def __init__(
        self,
        run: Run,
        nodeid: str,
        target: str,
        *,
        worker: str,
        disk: Disk,
        began: float | None = None,
    ) -> None:
        self.nodeid = nodeid
        self.target = target
        self._run = run
        self._disk = disk
        self._path: Path | None = None
        self._lock = threading.RLock()
        now = time.monotonic()
        self._started = now if began is None else began
        self._meta: dict[str, Any] = {
            "nodeid": nodeid,
            "target": target,
            "worker": worker,
            "status": RUNNING,
            "outcome": None,
            "start": _iso(datetime.now(UTC) - timedelta(seconds=now - self._started)),
            "duration": None,
            **owner(),
        }

    @property
    def made(self) -> bool:
        """Whether there is a directory yet."""
        return self._path is not None

    @property
    def path(self) -> Path:
        """The directory, made now if it was not; its meta.json says that the test is running."""
        with self._lock:
            if self._path is None:
                self._path = self._make()
                self._disk.replace(self._path / "meta.json", self._meta)
            return self._path

    def events(self, kind: str, /, **facts: Any) -> None:
        """Something happened: append ``{"t", "time", "kind", …facts}`` to events.jsonl.

        ``t`` is seconds since the test began, ``time`` the wall clock.
        """
        line = {"t": self._elapsed(), "time": _iso(datetime.now(UTC)), "kind": kind}
        if taken := line.keys() & facts.keys():
            raise ValueError(f"an event's facts cannot be named {', '.join(sorted(taken))}")
        self._disk.append_line(self.path / "events.jsonl", {**line, **facts})

    def qmp(self, line: dict[str, Any]) -> None:
        """Append a message to or from QEMU's monitor to qmp.jsonl, with its time."""
        self._disk.append_line(self.path / "qmp.jsonl", {"t": self._elapsed(), **line})

    def update(self, **facts: Any) -> None:
        """Add to meta.json."""
        with self._lock:
            self._meta.update(facts)
            self._disk.replace(self.path / "meta.json", self._meta)

    def finish(self, outcome: str, *, duration: float | None = None, **facts: Any) -> None:
        """The test has ended: passed, failed, error or skipped; ``duration`` in seconds."""
        duration = self._elapsed() if duration is None else duration
        self.update(status=FINISHED, outcome=outcome, duration=round(duration, 6), **facts)

    def _make(self) -> Path:
        name = directory_name(self.nodeid, self.target)
        path = self._run.path / name
        for count in range(2, 10_000):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                path = self._run.path / f"{name}.{count}"
            except OSError as error:
                self._disk.trouble(error)
                break
            else:
                break
        return path

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started, 6)


def owner() -> dict[str, int | None]:
    """Who writes: a pid, and the start time that makes it unmistakable."""
    return {"pid": os.getpid(), "pid_started": process.start_time(os.getpid())}


def _prepare_root(root: Path) -> None:
    made = not root.exists()
    (root / "runs").mkdir(parents=True, exist_ok=True)
    # A directory of the user's own is not ours to hide from git.
    if made or root.name == ".hil":
        ignore = root / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")


def _publish(runs: Path, facts: dict[str, Any]) -> Path:
    """Make a run's directory under a name that no other run has."""
    making = runs / f"{MAKING}{os.getpid()}-{time.monotonic_ns()}"
    making.mkdir()
    try:
        while True:
            path = runs / run_id(datetime.now(UTC))
            write_json(making / "run.json", {"id": path.name, **facts})
            try:
                making.rename(path)  # fails when there is one: it is not empty
            except OSError:
                if not path.exists():
                    raise
                continue
            return path
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _point_latest(root: Path, run: str) -> None:
    link = root / f".latest-{os.getpid()}-{time.monotonic_ns()}"
    link.symlink_to(Path("runs") / run)
    link.replace(root / "latest")


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")
