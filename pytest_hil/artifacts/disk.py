"""Writing files that must never end a test run, whatever the disk says."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

OnTrouble = Callable[[str], None]


def quiet(_message: str) -> None:
    """Say nothing."""


class Disk:
    """Makes directories and files; the first error is said to ``on_trouble``, later ones to nobody.

    After an error it goes on trying: a full disk may get room again.
    """

    def __init__(self, on_trouble: OnTrouble) -> None:
        self._on_trouble = on_trouble
        self._lock = threading.Lock()
        self.error: OSError | None = None

    def trouble(self, error: OSError) -> None:
        """Remember an error, and say it when it is the first."""
        with self._lock:
            first = self.error is None
            self.error = self.error or error
        if first:
            self._on_trouble(
                f"the artifacts of this run are incomplete: {error.strerror or error}"
                f"{f': {error.filename}' if error.filename else ''}"
            )

    def make_directory(self, path: Path) -> bool:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self.trouble(error)
            return False
        return True

    def append_line(self, path: Path, line: dict[str, Any]) -> None:
        """Append one JSON line with one write, so that lines of several writers don't mix."""
        # After trouble the file may end within a line, which must not spoil this one.
        data = (b"\n" if self.error else b"") + dump(line) + b"\n"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
            try:
                rest = memoryview(data)
                while rest:  # a disk that fills up takes a part first
                    rest = rest[os.write(fd, rest) :]
            finally:
                os.close(fd)
        except OSError as error:
            error.filename = error.filename or str(path)
            self.trouble(error)

    def replace(self, path: Path, content: dict[str, Any]) -> None:
        """Write a JSON file, whole or not at all."""
        try:
            write_json(path, content)
        except OSError as error:
            self.trouble(error)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file, as :func:`replacing` does."""
    with replacing(path) as file:
        file.write(dump(content, indent=2) + b"\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file so that a reader sees the old one or the new one, never a part.

    Raises OSError that names ``path``; then the old one stays. A symlink stays too: the file that
    it leads to is replaced. What is there and is no file (a pipe, a device) cannot be replaced
    without harm: it is written to.
    """
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as pipe:
                yield pipe
            return
        there = Path(os.path.realpath(path)) if path.is_symlink() else path
        new = there.with_name(f".{there.name}.{os.getpid()}-{threading.get_ident()}")
        try:
            with new.open("wb") as file:
                yield file
            new.replace(there)
        finally:
            with contextlib.suppress(OSError):
                new.unlink(missing_ok=True)
    except OSError as error:
        error.filename = str(path)
        raise


def dump(content: object, *, indent: int | None = None) -> bytes:
    """JSON in ASCII; what JSON has no word for (a path, an exception) is written as its text."""
    return json.dumps(content, default=str, indent=indent).encode()
