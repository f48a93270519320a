"""What is being done now, on stderr: for a person, or for a log."""

from __future__ import annotations

import shutil
import sys


class Status:
    """Status lines: one that changes at a terminal, one after the other elsewhere.

    A :data:`pytest_hil.progress.Progress`; a context manager that clears the line in the end.
    ``live``: whether it is a terminal.
    """

    def __init__(self, title: str = "") -> None:
        self._title = f"{title}: " if title else ""
        self.live = sys.stderr.isatty()
        self._last = ""

    def __call__(self, line: str) -> None:
        if self.live:
            # A line that the terminal folds could not be wiped by the next.
            width = shutil.get_terminal_size().columns - 1
            shown = f"{self._title}{line}"[:width]
            print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)
        elif line.partition(":")[0] != self._last:
            # A log needs to know what is done, not each per cent of it.
            self._last = line.partition(":")[0]
            print(f"{self._title}{line}", file=sys.stderr, flush=True)

    def say(self, line: str) -> None:
        """A line that stays."""
        self.end()
        print(f"{self._title}{line}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line that changes."""
        if self.live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Status:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()
