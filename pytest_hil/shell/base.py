"""What every shell gives: the result of a command."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended on the target.

    ``exit_code`` is negative for a signal, as in :mod:`subprocess`; ``duration`` is in seconds.
    """

    command: str
    stdout: str
    stderr: str
    exit_code: int
    duration: float

    @property
    def ok(self) -> bool:
        return self.exit_code == 0
