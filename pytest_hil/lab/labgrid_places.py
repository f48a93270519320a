"""What a labgrid coordinator has, as plain facts: places, resources, reservations. No I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pytest_hil.lab import labgrid_wire as wire

# States of a reservation (labgrid/remote/common.py, ReservationState).
WAITING, ALLOCATED, ACQUIRED = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Match:
    """Which resources belong to a place, by patterns. ``rename``: what the place calls it."""

    exporter: str
    group: str
    cls: str
    name: str = ""
    rename: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """``acquired``: who has it, "host/user", or "". ``reservation``: the token of the one that it
    is kept for. ``resources``: those that came with it, "exporter/group/class/name".
    """

    name: str
    aliases: frozenset[str] = frozenset()
    tags: Mapping[str, str] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()
    acquired: str = ""
    resources: tuple[str, ...] = ()
    reservation: str = ""

    @classmethod
    def read(cls, written: Any) -> Place:
        return cls(
            written.name,
            frozenset(written.aliases),
            dict(written.tags),
            tuple(
                Match(one.exporter, one.group, one.cls, one.name, one.rename)
                for one in written.matches
            ),
            written.acquired,
            tuple(written.acquired_resources),
            written.reservation,
        )

    @property
    def free(self) -> bool:
        """Anybody may take it."""
        return not self.acquired and not self.reservation


@dataclass(frozen=True, slots=True)
class Resource:
    """Something that an exporter offers. ``params`` is how it is reached."""

    exporter: str
    group: str
    cls: str
    name: str
    params: Mapping[str, object] = field(default_factory=dict)
    extra: Mapping[str, object] = field(default_factory=dict)
    available: bool = True

    @classmethod
    def read(cls, written: Any) -> Resource:
        return cls(
            written.path.exporter_name,
            written.path.group_name,
            written.cls,
            written.path.resource_name,
            {name: wire.value(one) for name, one in written.params.items()},
            {name: wire.value(one) for name, one in written.extra.items()},
            written.avail,
        )

    def __str__(self) -> str:
        return f"{self.exporter}/{self.group}/{self.cls}/{self.name}"


@dataclass(frozen=True, slots=True)
class Reserved:
    """A reservation. ``filter``: the tags that a place must have; ``place``: which it got."""

    owner: str
    token: str
    state: int
    priority: float
    filter: Mapping[str, str]
    place: str = ""

    @classmethod
    def read(cls, written: Any) -> Reserved:
        return cls(
            written.owner,
            written.token,
            written.state,
            written.prio,
            dict(written.filters["main"].filter) if "main" in written.filters else {},
            written.allocations.get("main", ""),
        )

    def wants(self, place: Place) -> bool:
        """Whether it may get that place. Its name counts as a tag of a place."""
        return self.filter.items() <= {**place.tags, "name": place.name}.items()


def find(name: str, places: Mapping[str, Place]) -> Place | None:
    """The place of that name or alias."""
    if name in places:
        return places[name]
    return next((one for one in places.values() if name in one.aliases), None)


def filters(wanted: Sequence[Place], every: Iterable[Place]) -> list[dict[str, str]]:
    """What to reserve to get one of those that are wanted, and no other.

    One filter by the tags that they share, where no other place has all of these; else one for
    each, by its name.
    """
    if len(wanted) > 1:
        shared = set(wanted[0].tags.items()).intersection(*(one.tags.items() for one in wanted))
        names = {one.name for one in wanted}
        if shared and all(one.name in names or not shared <= one.tags.items() for one in every):
            return [dict(shared)]
    return [{"name": one.name} for one in wanted]
