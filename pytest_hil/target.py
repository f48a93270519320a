"""The Target contract: what a test may ask of a machine or a board.

One class, several backends (``qemu/``, later ``board/``); the same contract tests
run against each. What a target does not have raises :class:`Unsupported`, and
``features`` says so beforehand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Protocol

from pytest_hil.shell.base import Completed

if TYPE_CHECKING:
    from pytest_hil.console.session import Console

Command = str | Sequence[str]

__all__ = ["Command", "Completed", "Power", "Snapshot", "Target"]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A state of a target to go back to; made by :meth:`Target.snapshot`."""

    name: str
    target: str
    path: str


class Power(Protocol):
    """The target's power switch."""

    def on(self) -> None:
        """Switch it on and wait until it is ready."""

    def off(self) -> None:
        """Take its power away, with no shutdown."""

    def cycle(self) -> None:
        """Off, then on, then ready."""

    def read(self) -> bool:
        """Whether it is on."""


class Target(ABC):
    """What a test runs on."""

    name: str
    arch: str
    features: frozenset[str]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    @property
    @abstractmethod
    def console(self) -> Console:
        """The target's own byte stream, read from its first byte."""

    @property
    @abstractmethod
    def power(self) -> Power:
        """The power switch."""

    @abstractmethod
    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = 64 * 2**20,
    ) -> Completed:
        """Run a command on the target and wait for its end.

        A string is a shell line (``sh -c``); a sequence is an argv. ``timeout`` is
        in seconds, None for no end; when it is over, the command's whole process
        group is killed. Output is text, decoded as UTF-8 with errors replaced.

        Raises CommandFailed (unless ``check`` is false), CommandTimeout,
        OutputTooLarge (more than ``max_output`` bytes), OutcomeUnknown.
        """

    @abstractmethod
    def put(
        self,
        local: str | PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """Copy a file or a directory to the target: checked at both ends, published by rename.

        ``mode`` is the file's mode bits (None: as it is here), ``owner`` its (uid, gid).
        """

    @abstractmethod
    def get(self, remote: str, local: str | PathLike[str]) -> None:
        """Copy a file or a directory from the target; the same promises as :meth:`put`."""

    @abstractmethod
    def reset(self) -> None:
        """Restart it as a reset button would, and wait until it is ready."""

    @abstractmethod
    def snapshot(self, name: str = "") -> Snapshot:
        """Save its whole present state, and go on."""

    @abstractmethod
    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a saved state; what the target did since is forgotten."""

    @abstractmethod
    def fork(self) -> Target:
        """A second target that goes on from this one's present state, independently of it.

        It ends with this one, or when it is closed.
        """

    @abstractmethod
    def forward(self, guest_port: int, protocol: str = "tcp") -> int:
        """The port on 127.0.0.1 that leads to a port of the target (``forwards=[…]``)."""

    @abstractmethod
    def close(self) -> None:
        """End it and free everything it holds. May be called twice."""
