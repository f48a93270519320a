"""What a detector finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad it is, the worst first."""

    FATAL = "fatal"  # the machine is gone: it panicked, halted or was reset
    ERROR = "error"  # a bug of the kernel or firmware; the machine may go on
    WARNING = "warning"  # the kernel complains, and goes on
    USER = "user"  # a program crashed, not the system below it


@dataclass(frozen=True, slots=True)
class Crash:
    """One crash, from its first line to its last.

    ``title`` is the same whenever the same thing happens: no address, number or time is in it.
    ``text`` is the report as it came, without terminal control sequences. ``start`` and ``end``
    are offsets in the bytes that the detector was fed, ``at`` and ``until`` the times that came
    with its first and last line (None: none was given). ``panic`` is why the machine stopped
    after it, "" if it did not. ``corrupted``: something of the report is missing or broken.
    ``follow_up``: the system had crashed before, so this may be nothing but its consequence.
    """

    kind: str
    severity: Severity
    title: str
    text: str
    start: int
    end: int
    at: float | None = None
    until: float | None = None
    panic: str = ""
    corrupted: bool = False
    follow_up: bool = False

    @property
    def gone(self) -> bool:
        """Whether the system that crashed is not there any more."""
        return self.severity is Severity.FATAL or bool(self.panic)
