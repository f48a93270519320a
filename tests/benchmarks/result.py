"""What a benchmark found: one line a figure, and the bound that it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

What = Literal["ours", "ratio", "over peer"]


@dataclass(frozen=True, slots=True)
class Bound:
    """What must hold: at most (``≤``) or at least (``≥``) this much of a line's figure.

    ``over peer`` is ours minus the peer's.
    """

    what: What
    relation: Literal["≤", "≥"]
    limit: float

    def holds(self, line: Line) -> bool:
        """Whether it does. A figure that could not be measured holds nothing."""
        found = self._figure(line)
        if found is None:
            return False
        return found <= self.limit if self.relation == "≤" else found >= self.limit

    def _figure(self, line: Line) -> float | None:
        if self.what == "ours":
            return line.ours
        if self.what == "ratio":
            return line.ratio
        return None if line.peer is None else line.ours - line.peer

    def __str__(self) -> str:
        name = "" if self.what == "ours" else f"{self.what} "
        return f"{name}{self.relation} {self.limit:g}"


def at_most(limit: float, what: What = "ours") -> Bound:
    return Bound(what, "≤", limit)


def at_least(limit: float, what: What = "ours") -> Bound:
    return Bound(what, "≥", limit)


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. ``ours`` and ``peer`` are medians, in ``unit``, of ``n`` measurements of ours.

    ``best`` is the best of ours: on a host with other work, the one that was disturbed least.
    """

    name: str
    ours: float
    unit: str
    n: int
    best: float
    peer: float | None = None
    more_is_better: bool = False
    bounds: tuple[Bound, ...] = ()

    @property
    def ratio(self) -> float | None:
        """How many times better ours is; None without a peer."""
        if self.peer is None:
            return None
        over, under = (self.ours, self.peer) if self.more_is_better else (self.peer, self.ours)
        return over / under

    @property
    def holds(self) -> bool:
        return all(bound.holds(self) for bound in self.bounds)

    def as_json(self) -> dict[str, str | float | int | None]:
        """The line as ``--json`` writes it."""
        return {
            "name": self.name,
            "ours": round(self.ours, 3),
            "peer": None if self.peer is None else round(self.peer, 3),
            "ratio": None if self.ratio is None else round(self.ratio, 3),
            "unit": self.unit,
            "n": self.n,
        }


def line(
    name: str,
    ours: Sequence[float],
    unit: str,
    *bounds: Bound,
    peer: Sequence[float] | None = None,
    more_is_better: bool = False,
) -> Line:
    """A line of measurements, already in ``unit``."""
    return Line(
        name,
        ours=statistics.median(ours),
        unit=unit,
        n=len(ours),
        best=max(ours) if more_is_better else min(ours),
        peer=None if peer is None else statistics.median(peer),
        more_is_better=more_is_better,
        bounds=bounds,
    )


def milliseconds(seconds: Sequence[float]) -> list[float]:
    return [each * 1000 for each in seconds]
