"""What is known of the machines that were started by hand, whether their servers live or not.

``$TMPDIR/pytest-hil-UID/vm/NAME/``: ``record.json``, the server's ``socket`` and its ``log``. A
record stays when its machine has died, until somebody has seen why (``vm stop``, ``clean``, or a
new machine of that name). Whatever changes the names holds one lock, so none is ever taken twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_hil import process
from pytest_hil.config import values
from pytest_hil.config.values import BadValue
from pytest_hil.errors import ConfigError, nearest
from pytest_hil.qemu import runtime

State = Literal["starting", "ready", "died"]

_FILE = "record.json"
_SOCKET = "socket"


@dataclass(frozen=True, slots=True)
class Record:
    """One machine. ``pid`` and ``started`` name its server.

    ``since``: seconds since the epoch. ``qemu``: the machine's own process. ``memory`` in bytes.
    ``forwards``: protocol, port of the host, port of the guest. ``why`` it died, and the ``last``
    lines of its console.
    """

    name: str
    target: str
    pid: int
    started: int | None
    since: float
    state: State = "starting"
    qemu: int | None = None
    arch: str = ""
    accel: str = ""
    memory: int = 0
    origin: str = ""
    forwards: tuple[tuple[str, int, int], ...] = ()
    why: str = ""
    last: str = ""

    @property
    def directory(self) -> Path:
        return _directory() / self.name

    @property
    def alive(self) -> bool:
        """Whether its server still runs."""
        return self.started is not None and process.start_time(self.pid) == self.started

    def write(self, **changes: Any) -> Record:
        """Change it, on disk too; the new one. Only its server does this."""
        changed = dataclasses.replace(self, **changes)
        _write(changed)
        return changed


def claim(name: str, target: str) -> Record:
    """Take a name for a machine of this process ("": ``TARGET-1``, or the next that is free).

    Raises ConfigError when the name is taken or cannot be one.
    """
    if name:
        _check(name)
    with _locked():
        taken = {one.name: one for one in _read_all()}
        if not name:
            numbers = iter(range(1, len(taken) + 2))
            name = next(f"{target}-{n}" for n in numbers if f"{target}-{n}" not in taken)
        elif name in taken and taken[name].state != "died":
            raise ConfigError(
                "--name",
                f"there is a machine {name!r} already",
                mend=f"`pytest-hil vm stop {name}` ends it",
            )
        pid = os.getpid()
        record = Record(name, target, pid, process.start_time(pid), time.time())
        shutil.rmtree(record.directory, ignore_errors=True)
        record.directory.mkdir(mode=0o700)
        _write(record)
    return record


def records() -> list[Record]:
    """All of them, by name. Those whose servers were killed are died ones from now on."""
    with _locked():
        return _read_all()


def find(name: str) -> Record:
    """The machine of that name, dead or alive; ConfigError with the nearest name if none is."""
    known = {one.name: one for one in records()}
    if name not in known:
        mend = nearest(name, known) if known else "`pytest-hil vm start` starts one"
        raise ConfigError("vm", f"there is no machine {name!r}", mend=mend)
    return known[name]


def forget(record: Record) -> None:
    """Remove what is left of a machine, unless its name is another one's by now."""
    with _locked():
        now = _read(record.directory)
        if now is None or (now.pid, now.started) == (record.pid, record.started):
            shutil.rmtree(record.directory, ignore_errors=True)


@contextlib.contextmanager
def socket_path(record: Record) -> Iterator[str]:
    """Where its server listens, as a path short enough for a socket however long it really is."""
    fd = os.open(record.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{_SOCKET}"
    finally:
        os.close(fd)


def _directory() -> Path:
    path = runtime.base() / "vm"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    fd = os.open(_directory() / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _check(name: str) -> None:
    try:
        values.name(name)
    except BadValue as bad:
        raise ConfigError("--name", bad.message, mend=bad.mend) from None


def _read_all() -> list[Record]:
    found = []
    for path in sorted(_directory().iterdir()):
        if path.name.startswith("."):
            continue
        record = _read(path)
        if record is None:
            # Its server was killed between two lines of claim().
            shutil.rmtree(path, ignore_errors=True)
            continue
        if record.state != "died" and not record.alive:
            (path / _SOCKET).unlink(missing_ok=True)
            record = record.write(
                state="died", why=f"its server (process {record.pid}) was killed", qemu=None
            )
        found.append(record)
    return found


def _read(directory: Path) -> Record | None:
    try:
        facts = json.loads((directory / _FILE).read_text())
        facts["forwards"] = tuple(tuple(one) for one in facts["forwards"])
        return Record(**facts)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _write(record: Record) -> None:
    new = record.directory / f".{_FILE}.{os.getpid()}"
    new.write_text(json.dumps(dataclasses.asdict(record)))
    new.replace(record.directory / _FILE)
