"""What a boot stage is: a state of the board with a prompt, and the way into it and out of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pytest_hil.config.driver import Section, key, seconds
from pytest_hil.config.values import text
from pytest_hil.console.session import Console
from pytest_hil.errors import ConsoleClosed, ExpectTimeout, InfrastructureError


class StageFailed(InfrastructureError):
    """A board did not reach a stage. ``stage`` is its name."""

    def __init__(self, board: str, stage: str, why: str, *, console: str, mend: str = "") -> None:
        lines = "\n".join(f"    {line}" for line in console.splitlines())
        said = (
            f"; the console's last lines:\n{lines}" if lines.strip() else "; its console is silent"
        )
        super().__init__(f"the board {board} did not reach {stage}: {why}{said}", mend=mend)
        self.stage = stage


class Refused(Exception):
    """Raised by a stage: it cannot be reached, and why. ``mend`` says what to do about it."""

    def __init__(self, why: str, *, mend: str = "") -> None:
        super().__init__(why)
        self.mend = mend


@dataclass(frozen=True, slots=True)
class StageOptions:
    """Keys that every ``boot`` table may have, whatever its driver."""

    name: str = key(text, default="", help="what the state is called; the driver's own word for it")
    timeout: float = key(seconds, default=60.0, help="how long it may take to get there")


class Stage(Protocol):
    """A state with a prompt. Made as ``Driver(options)``; has no state of its own."""

    Options: ClassVar[type]
    state: ClassVar[str]
    """What the state is called unless boards.toml says otherwise."""

    def __init__(self, options: Any) -> None: ...

    @property
    def passable(self) -> bool:
        """Whether the board goes on from here by itself, so that nobody need stop it."""

    def enter(self, way: Way) -> None:
        """Power is on, or the stage before was left: until it has its prompt. Raises Refused."""

    def leave(self, way: Way) -> None:
        """From its prompt on towards the next stage. Raises Refused."""

    def here(self, way: Way) -> bool:
        """Whether the board is at this prompt now. Must do no harm wherever it is."""


class Way:
    """The console as stages use it: every wait ends with the stage's own deadline."""

    def __init__(
        self, console: Console, timeout: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.console = console
        self._clock = clock
        self._until = clock() + timeout
        self.timeout = timeout

    @property
    def left(self) -> float:
        """Seconds until the stage's time is over."""
        return max(0.0, self._until - self._clock())

    def send(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.console.send(self.console.cursor_report + data)

    def sendline(self, line: str) -> None:
        # A terminal's return key; a login has the tty turn it into a newline.
        self.send(f"{line}\r")

    def expect(self, patterns: list[str], *, within: float | None = None) -> int:
        """Which of them came first. Raises ExpectTimeout."""
        seconds = self.left if within is None else min(within, self.left)
        return self.console.expect(patterns, timeout=seconds).index

    def expect_or_none(self, patterns: list[str], within: float) -> int | None:
        """Which of them came first; None when none did in time, or the console ended."""
        try:
            return self.expect(patterns, within=within)
        except ExpectTimeout:
            return None


@dataclass(frozen=True, slots=True)
class Placed:
    """A stage in a board's path."""

    name: str
    timeout: float
    stage: Stage

    @property
    def passable(self) -> bool:
        """Whether the board goes on from here by itself."""
        return self.stage.passable


def open_stages(sections: tuple[Section, ...]) -> tuple[Placed, ...]:
    """The stages of a board, in order. Raises ConfigError."""
    from pytest_hil.board import drivers

    found: list[Placed] = []
    for section in sections:
        kind = drivers.find("boot", section)
        options, own = section.both(StageOptions, kind.Options)
        name = options.name or kind.state
        if name in (*(one.name for one in found), "off"):
            raise section.wrong("name", f"{name!r} is there twice", mend="give it another name =")
        found.append(Placed(name, options.timeout, kind(own)))
    return tuple(found)


__all__ = ["ConsoleClosed", "Placed", "Refused", "Stage", "StageFailed", "Way", "open_stages"]
