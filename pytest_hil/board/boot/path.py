"""Which stages a board goes through to get where it is wanted. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

OFF = "off"

Move = Literal["off", "on", "reset", "enter", "leave"]
# What can make a board begin anew: a power switch, only a reset line, or nothing.
Restart = Literal["power", "reset", "nothing"]


class Named(Protocol):
    """A stage as the path needs it."""

    @property
    def name(self) -> str:
        """The state's name."""

    @property
    def passable(self) -> bool:
        """Whether the board goes on from here by itself."""


@dataclass(frozen=True, slots=True)
class Step:
    """``enter`` and ``leave`` have a stage's name."""

    move: Move
    stage: str = ""


def path(
    stages: Sequence[Named], at: str | None, to: str, *, restart: Restart = "power"
) -> list[Step]:
    """The steps from one state to another; ``at`` None: nobody knows where it is.

    Forward if that leads there, else it begins anew. Where nothing can make it do so, and nobody
    knows where it is, it is waited for: it may be on its way.
    Raises KeyError for a state that there is not.
    """
    names = [one.name for one in stages]
    if to == OFF:
        return [] if at == OFF else [Step("off")]
    end = names.index(to) if to in names else _missing(to)
    if at == to:
        return []
    if at is None and restart == "nothing":
        return [Step("enter", to)]
    begin = names.index(at) if at in names else -1
    steps: list[Step] = []
    if 0 <= begin < end:
        steps.append(Step("leave", names[begin]))
    else:
        begin = -1
        steps += _anew(at, restart)
    for one in stages[begin + 1 : end]:
        if not one.passable:
            steps += [Step("enter", one.name), Step("leave", one.name)]
    return [*steps, Step("enter", to)]


def _anew(at: str | None, restart: Restart) -> list[Step]:
    if restart == "reset":
        return [Step("reset")]
    # Off first, for what is on and somewhere else; it costs little for what is off.
    return [Step("on")] if at == OFF else [Step("off"), Step("on")]


def _missing(name: str) -> int:
    raise KeyError(name)
