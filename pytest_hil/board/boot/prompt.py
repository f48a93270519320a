"""A stage that is nothing but a prompt: a shell without a login, a firmware's monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pytest_hil.board.boot.stage import Refused, Way
from pytest_hil.config import values
from pytest_hil.config.driver import key
from pytest_hil.config.values import regex, text

# Seconds until the return key is worth a try.
_SILENCE = 3.0


@dataclass(frozen=True, slots=True)
class PromptOptions:
    """Keys of a ``boot`` table with ``driver = "prompt"``."""

    prompt: str = key(regex, default=r"(?m)^[^\n#$>]*[#$>] \Z", help="what it looks like")
    wake: bool = key(
        values.boolean, default=True, help="press the return key when it does not come by itself"
    )
    go: str = key(text, default="", help="the command that goes on to the next stage")


class Prompt:
    """The stage ``prompt``."""

    Options: ClassVar[type] = PromptOptions
    state: ClassVar[str] = "prompt"

    def __init__(self, options: PromptOptions) -> None:
        self._options = options

    @property
    def passable(self) -> bool:
        return False

    def enter(self, way: Way) -> None:
        while way.left:
            if way.expect_or_none([self._options.prompt], _SILENCE) is not None:
                return
            if self._options.wake:
                way.sendline("")
        raise Refused(f"{self._options.prompt!r} did not come within {way.timeout:g} s")

    def leave(self, way: Way) -> None:
        way.sendline(self._options.go)

    def here(self, way: Way) -> bool:
        way.send(b"\x03\r")
        return way.expect_or_none([self._options.prompt], _SILENCE) is not None
