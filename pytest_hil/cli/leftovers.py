"""What runs that were killed have left behind: found without touching it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.cli.started import record
from pytest_hil.cli.started.record import Record
from pytest_hil.qemu import runtime
from pytest_hil.qemu.room import Occupant, Room


@dataclass(frozen=True, slots=True)
class Leftovers:
    """``machines``: QEMUs whose makers are gone. ``directories``: of runs that are gone, with
    their sizes in bytes. ``died``: machines started by hand whose end nobody has looked at.
    """

    machines: tuple[Occupant, ...]
    directories: tuple[tuple[Path, int], ...]
    died: tuple[Record, ...]

    def __bool__(self) -> bool:
        return bool(self.machines or self.directories or self.died)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(size for _, size in self.directories)


def find() -> Leftovers:
    """All of this user's, whichever runs they are of."""
    return Leftovers(
        machines=tuple(
            one for one in Room().occupants() if process.start_time(one.owner) != one.owner_started
        ),
        directories=tuple((path, disk_size(path)) for path in _dead_directories()),
        died=tuple(one for one in record.records() if one.state == "died"),
    )


def disk_size(path: Path) -> int:
    """Bytes on disk of a file, or of all files below a directory; holes do not count."""
    if not path.is_dir():
        return _blocks(path)
    return sum(
        _blocks(Path(folder) / name) for folder, _dirs, names in os.walk(path) for name in names
    )


def _blocks(path: Path) -> int:
    try:
        return path.lstat().st_blocks * 512
    except OSError:  # removed while we look
        return 0


def _dead_directories() -> list[Path]:
    found = []
    for path in sorted(runtime.base().iterdir()):
        pid, _, started = path.name.partition(".")
        if pid.isdigit() and started.isdigit() and not runtime.is_alive(path.name):
            found.append(path)
    return found
