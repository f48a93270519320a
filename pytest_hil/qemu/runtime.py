"""The directory of what lives only as long as its owner: overlays of disks, places of machines.

``$TMPDIR/pytest-hil-UID/PID.STARTTIME/``: named after the process that owns it, so that whoever
comes next can tell what a killed one left, and remove it. Paths here are never those of sockets:
all channels of a machine are socket pairs that have no path.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import NoRoom


def base() -> Path:
    """The user's directory, made if it is not there, and nobody else's."""
    path = Path(tempfile.gettempdir()) / f"pytest-hil-{os.getuid()}"
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise NoRoom(
            f"the runtime directory {path} cannot be made: {error.strerror}",
            mend="set TMPDIR to a directory that can be written",
        ) from error
    if status.st_uid != os.getuid() or not stat.S_ISDIR(status.st_mode) or status.st_mode & 0o077:
        raise NoRoom(
            f"the runtime directory {path} is not ours alone (owner {status.st_uid}, "
            f"mode {stat.S_IMODE(status.st_mode):o})",
            mend=f"remove it, or set TMPDIR to another directory: rm -r {path}",
        )
    return path


def owner_name() -> str:
    """How this process is called in the runtime directory."""
    pid = os.getpid()
    return f"{pid}.{process.start_time(pid)}"


def is_alive(owner: str) -> bool:
    """Whether the process that a name stands for still runs."""
    pid, _, started = owner.partition(".")
    return pid.isdigit() and started.isdigit() and process.start_time(int(pid)) == int(started)


def directory(prefix: str) -> Path:
    """A new directory of this process; its owner removes it, or :func:`reap` does."""
    mine = base() / owner_name()
    while True:
        # Another thread may remove its last directory, and with it this one, at any moment; for
        # mkdir's own exist_ok that is an error.
        with contextlib.suppress(FileExistsError):
            mine.mkdir(mode=0o700)
        with contextlib.suppress(FileNotFoundError):
            return Path(tempfile.mkdtemp(prefix=f"{prefix}-", dir=mine))


def remove(path: Path) -> None:
    """Remove one of this process's directories, and its parent once that is empty."""
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
        path.parent.rmdir()


def reap() -> list[str]:
    """Remove what dead owners left; their names."""
    gone = []
    for path in base().iterdir():
        pid, _, started = path.name.partition(".")
        if pid.isdigit() and started.isdigit() and not is_alive(path.name):
            shutil.rmtree(path, ignore_errors=True)
            gone.append(path.name)
    return gone
