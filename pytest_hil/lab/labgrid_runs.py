"""Who of this host has talked to a coordinator, so that a run finds what killed ones have left.

labgrid's coordinator keeps a place for whoever acquired it when the connection is lost; it has only
a name of them. Each process of ours has a name of its own, "host/user-hil-PID-RANDOM", and a file
of that name whose lock it holds: a file that nobody holds is of one that is dead, whatever happened
to its pid since, also after a restart of the host. The file goes when nothing is left.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.lab.locks import Lock, is_held

_GATE = ".gate"


@dataclass(frozen=True, slots=True)
class Run:
    """A process that was or is there. ``started``: clock ticks since boot."""

    name: str
    coordinator: str
    path: Path
    pid: int = 0
    started: int = 0


class Runs:
    """The runs of a ``host``'s directory; ``user`` is the name that others see. Raises OSError."""

    def __init__(self, directory: Path, host: str, user: str) -> None:
        # A lab's directory may be several users': what is in here is one's alone.
        self._directory = directory / f"labgrid-{host}-{user}"
        self._host = host
        self._user = user

    def begin(self, coordinator: str) -> tuple[Run, Lock]:
        """A name of our own, and the lock that says that we live."""
        pid = os.getpid()
        user = f"{self._user}-hil-{pid}-{secrets.token_hex(4)}"
        started = process.start_time(pid) or 0
        run = Run(f"{self._host}/{user}", coordinator, self._directory / user, pid, started)
        with self._gate():
            lock = Lock.take(run.path, wait=True)
            assert lock is not None
            facts = {"name": run.name, "coordinator": coordinator, "pid": pid, "started": started}
            lock.write(json.dumps(facts) + "\n")
        return run, lock

    def others(self, coordinator: str) -> tuple[list[Run], list[Run]]:
        """Those of that coordinator that are dead, and those that live."""
        dead: list[Run] = []
        alive: list[Run] = []
        with self._gate():
            for path in sorted(self._directory.iterdir()):
                if path.name == _GATE:
                    continue
                held = is_held(path)
                run = _read(path)
                if run is None:
                    # Killed before it had written a word, or not ours to read.
                    if not held:
                        _remove(path)
                elif run.coordinator == coordinator:
                    (alive if held else dead).append(run)
        return dead, alive

    def forget(self, run: Run) -> None:
        """Nothing is left of it."""
        _remove(run.path)

    @contextlib.contextmanager
    def _gate(self) -> Iterator[None]:
        # A file is there a moment before it is locked: nobody may look then.
        self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.mkdir(mode=0o700, exist_ok=True)
        gate = Lock.take(self._directory / _GATE, wait=True)
        assert gate is not None
        try:
            yield
        finally:
            gate.free()


def _read(path: Path) -> Run | None:
    try:
        facts = json.loads(path.read_text())
        return Run(
            str(facts["name"]),
            str(facts["coordinator"]),
            path,
            int(facts["pid"]),
            int(facts["started"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
