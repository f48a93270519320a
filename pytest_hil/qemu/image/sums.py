"""Checksums of the user's files, which may be large and rarely change."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from pathlib import Path

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.manifest import sum_of

_SETTLED = 2 * 10**9
"""A file that changed less than so many ns ago may change again within the same time stamp."""


class Sums:
    """sha256 of files, remembered below ``root`` by path, size, time and inode.

    Without a place to write it is only slower.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "sums"

    def sha256(self, path: Path) -> str:
        """Of the file's contents, in hex. Raises ImageError when it cannot be read."""
        try:
            path = path.resolve(strict=True)
            state = path.stat()
            note = self._root / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
            stamp = [state.st_size, state.st_mtime_ns, state.st_ino, state.st_dev]
            if (known := _read(note, stamp)) is not None:
                return known
            value = sum_of(path).sha256
            again = path.stat()
        except OSError as error:
            raise ImageError(f"{path} cannot be read: {error.strerror}") from error
        if again.st_mtime_ns == state.st_mtime_ns < time.time_ns() - _SETTLED:
            self._write(note, stamp, value)
        return value

    def _write(self, note: Path, stamp: list[int], value: str) -> None:
        with contextlib.suppress(OSError):
            self._root.mkdir(parents=True, exist_ok=True)
            fd, new = tempfile.mkstemp(prefix=".new-", dir=self._root)
            try:
                with os.fdopen(fd, "w") as stream:
                    json.dump([stamp, value], stream)
                Path(new).replace(note)
            finally:
                Path(new).unlink(missing_ok=True)


def _read(note: Path, stamp: list[int]) -> str | None:
    with contextlib.suppress(OSError, ValueError):
        known, value = json.loads(note.read_text())
        if known == stamp and isinstance(value, str):
            return value
    return None
