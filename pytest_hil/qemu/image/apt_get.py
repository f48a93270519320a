"""One run of apt-get, watched: what it has done so far, and whether it still does anything.

apt gives up a server that says nothing (Acquire::http::Timeout), but a disk that fills up
makes it wait for ever (apt 2.6).
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import NoRoom

_FULL_AFTER = 3.0
"""Seconds without progress before the disk is looked at."""
_FULL = 256 * 1024
"""A disk with fewer free bytes is full."""


@dataclass(frozen=True, slots=True)
class Done:
    """``said``: its standard output and errors."""

    exit_code: int
    said: str


def env() -> dict[str, str]:
    """Messages that we can read, and nobody to ask."""
    return {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


def watched(
    argv: Sequence[str], *, cwd: Path, percent: Callable[[int], None], patience: float
) -> Done:
    """Run apt-get with its files below ``cwd``; ``percent`` hears of each change.

    It is killed when it makes no progress for ``patience`` seconds. Raises NoRoom when the
    disk is full.
    """
    reader, writer = os.pipe()
    try:
        with tempfile.TemporaryFile() as said:
            try:
                child = process.start(
                    [*argv[:1], "-o", f"APT::Status-Fd={writer}", *argv[1:]],
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    cwd=cwd,
                    env=env(),
                    pass_fds=[writer],
                )
            finally:
                os.close(writer)
            with child:
                gave_up = _follow(reader, cwd, percent, patience)
                if gave_up:
                    child.kill()
                code = child.wait() or 0
            said.seek(0)
            text = said.read().decode(errors="replace")
    finally:
        os.close(reader)
    if code != 0 and (is_full(cwd) or "No space left" in text or "enough free space" in text):
        raise no_room(cwd)
    return Done(code, f"{text}\nE: {gave_up}\n" if gave_up else text)


def no_room(path: Path) -> NoRoom:
    return NoRoom(
        f"no room for the packages in {path}",
        mend="free some disk, or put the cache elsewhere: PYTEST_HIL_CACHE=DIR",
    )


def _follow(reader: int, cwd: Path, percent: Callable[[int], None], patience: float) -> str:
    """Read apt's status lines to their end; why that was given up, or "".

    A line is ``dlstatus:<number>:<percent>:<sentence>`` (apt's README.progress-reporting); it
    comes twice a second, also when nothing happens.
    """
    shown, last, since = -1, "", time.monotonic()
    rest = b""
    while True:
        readable, _, _ = select.select([reader], [], [], patience)
        data = os.read(reader, 65536) if readable else b""
        if readable and not data:
            return ""
        *lines, rest = (rest + data).split(b"\n")
        for fields in (line.decode(errors="replace").split(":", 3) for line in lines):
            if len(fields) != 4 or fields[0] != "dlstatus" or fields[2] == last:
                continue
            last, since = fields[2], time.monotonic()
            if (now := int(float(last))) != shown:
                shown = now
                percent(now)
        still = time.monotonic() - since
        if still >= _FULL_AFTER and is_full(cwd):
            return "the disk is full"
        if still >= patience:
            return f"no progress for {patience:g} s"


def is_full(path: Path) -> bool:
    """Whether the disk below a directory has no room left."""
    state = os.statvfs(path)
    return state.f_bavail * state.f_frsize < _FULL
