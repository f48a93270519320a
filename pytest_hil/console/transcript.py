"""A console's transcript on disk: what it said, as it says it.

``console.log`` holds the bytes as they came. ``console.jsonl`` holds one JSON object a line:

========== =====================================================================
``t``      seconds since the console was opened (float)
``wall``   the first line only, whose ``t`` is 0: the wall-clock time then, ISO 8601
``data``   what was said, when it is UTF-8
``base64`` what was said, when it is not
========== =====================================================================

and where it holds, ``"inherited": true`` (said by the machine's template, before this
machine began) or ``"left_out": N`` (so many bytes were said before the recording began
and are in no transcript). Each line is written with one call and nothing is buffered, so a run
that is killed has all but, at most, its last line.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pytest_hil.console.stream import split_utf8


class Transcript:
    """The two files in a directory; they are continued when they exist.

    A disk that is full or read-only must not end a test run: the first error is kept in
    ``error``, and nothing is written after it. ``t``: now, in seconds since the console was opened.
    """

    def __init__(self, directory: Path, *, name: str, t: float) -> None:
        self.directory = directory
        self.error: OSError | None = None
        self._log = self._lines = -1
        self._started = b""
        self._t = t
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._log = _open(directory / "console.log")
            self._lines = _open(directory / "console.jsonl")
        except OSError as error:
            self._fail(error)
        wall = (datetime.now(UTC) - timedelta(seconds=t)).isoformat(timespec="milliseconds")
        self._line({"t": 0.0, "wall": wall, "console": name, "data": ""})

    def write(self, t: float, data: bytes, **facts: Any) -> None:
        """Append bytes; ``facts`` go to their line of console.jsonl. Raises nothing."""
        self._t = t
        self._write(self._log, data)
        data, self._started = split_utf8(self._started + data)
        self._data(data, **facts)

    def note(self, t: float, **facts: Any) -> None:
        """A line of console.jsonl about something that is not in console.log."""
        self._line({"t": round(t, 6), **facts, "data": ""})

    def close(self) -> None:
        """Write what is left and close the files. May be called twice."""
        self._data(self._started)
        self._started = b""
        for fd in (self._log, self._lines):
            if fd >= 0:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._log = self._lines = -1

    def _data(self, data: bytes, **facts: Any) -> None:
        if not data:
            return
        line: dict[str, Any] = {"t": round(self._t, 6), **facts}
        try:
            line["data"] = data.decode()
        except UnicodeDecodeError:
            line["base64"] = base64.b64encode(data).decode()
        self._line(line)

    def _line(self, line: dict[str, Any]) -> None:
        # Escaped to ASCII: U+2028 and friends would break lines for some readers.
        self._write(self._lines, json.dumps(line).encode() + b"\n")

    def _write(self, fd: int, data: bytes) -> None:
        if self.error is not None or fd < 0:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(fd, rest) :]
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        if self.error is None:
            self.error = error


def _open(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
