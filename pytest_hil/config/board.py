"""``[target.NAME]`` with ``backend = "board"``: a physical board, and how it is reached."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.config import usb, values
from pytest_hil.config.described import array_of, described
from pytest_hil.config.driver import Section, section
from pytest_hil.config.tables import Check, Problems, plain
from pytest_hil.config.usb import BoardUsb
from pytest_hil.config.values import BadValue, wrong_kind
from pytest_hil.errors import ConfigError

BETWEEN = ("cycle", "keep", "reset")

_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:=-]*")


@dataclass(frozen=True, slots=True)
class BoardTarget:
    """What boards.toml says of a board.

    ``boot``: its stages in their order. ``between``: what happens between two tests: nothing
    ("keep"), a reset, or a power cycle. ``env``: for every command. ``tags``: words by which tests
    and people choose it. ``place``: what a labgrid coordinator calls it ("": by its name). ``usb``:
    how USB devices of this host come to it.
    """

    name: str
    arch: str
    console: Section
    power: Section | None = None
    reset: Section | None = None
    boot: tuple[Section, ...] = ()
    shell: Section | None = None
    features: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()
    env: tuple[tuple[str, str], ...] = ()
    between: str = "keep"
    place: str = ""
    usb: BoardUsb | None = None

    @property
    def has_shell(self) -> bool:
        """Whether there are commands and files at the end of its boot; a firmware has none."""
        return bool(self.boot) if self.shell is None else self.shell.driver != "none"

    @property
    def words(self) -> frozenset[str]:
        """All that it can be chosen by: its name, its architecture, its tags and features."""
        return frozenset({self.name, self.arch, "hardware", *self.tags, *self.all_features})

    @property
    def all_features(self) -> frozenset[str]:
        """The features that are written, and those that its parts give it."""
        found = {self.arch, "console", *self.features, *(one.driver for one in self.boot)}
        if self.power is not None:
            found.add("power")
        if self.has_shell:
            found.add("shell")
        if self.usb is not None:
            found.add("usb")
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class PoolTarget:
    """Several boards, of which a test gets one that fits: ``--hil-target="arm64 and usb3"``."""

    name: str
    boards: tuple[BoardTarget, ...]

    @property
    def arch(self) -> str:
        """That of all of them, or "several"."""
        found = {one.arch for one in self.boards}
        return found.pop() if len(found) == 1 else "several"

    def fitting(self, features: frozenset[str]) -> tuple[BoardTarget, ...]:
        """Those that have the features, the ones with the fewest others first: what has much is
        kept for who needs it."""
        found = [one for one in self.boards if features <= one.all_features]
        return tuple(sorted(found, key=lambda one: (len(one.words), one.name)))

    def missing(self, features: frozenset[str]) -> frozenset[str]:
        """What the board lacks that lacks least."""
        return min((features - one.all_features for one in self.boards), key=len)


def made(
    name: str, found: dict[str, Any], present: AbstractSet[str], *, prefix: str, problems: Problems
) -> BoardTarget | None:
    """A board of the keys that are right; ``present`` are all that are written. None when it is so
    wrong that nothing can be made of it.
    """
    if "console" not in present:
        problems.add(
            f"{prefix}console",
            "missing",
            'write console = {driver = "serial", port = "/dev/serial/by-id/…"}',
        )
    between = found.get("between", "keep")
    lacking = {"cycle": {"power"}, "reset": {"reset", "power"}}.get(between)
    if lacking is not None and not lacking & present:
        problems.add(
            f"{prefix}between",
            f"{between!r} takes a {' or a '.join(sorted(lacking))} table, and there is none",
            'add power = {driver = "…"}, or write between = "keep"',
        )
    if "console" not in found:
        return None
    found.setdefault("arch", "aarch64")
    return BoardTarget(name=name, **found)


def checks_of(
    table: str, *, source: str, problems: Problems, inherited: Mapping[str, str] | None = None
) -> dict[str, Check]:
    """What checks the keys of a board's table, such as "target.rpi4".

    ``inherited``: the tables in which those of its keys stand that it has from elsewhere.
    """
    tables = inherited or {}

    def part(key: str) -> Callable[[object, Path], Section]:
        def check(value: object, where: Path) -> Section:
            written = tables.get(key.partition("[")[0], table)
            return section(value, source=source, where=f"[{written}.{key}]", base=where)

        return check

    def stages(value: object, where: Path) -> tuple[Section, ...]:
        if isinstance(value, dict | str):
            return (part("boot")(value, where),)
        numbers = itertools.count()

        def one(each: object) -> Section:
            return part(f"boot[{next(numbers)}]")(each, where)

        return values.array(value, one, "an array of tables")

    def devices(value: object, where: Path) -> BoardUsb | None:
        written = tables.get("usb", table)
        return usb.read(value, where, prefix=f"[{written}.usb] ", problems=problems)

    return {
        **KEYS,
        "usb": devices,
        "boot": stages,
        **{key: part(key) for key in ("console", "power", "reset", "shell")},
    }


def refuse_overrides(board: BoardTarget, where: str, overrides: Mapping[str, object]) -> None:
    """A board has what it has. Raises ConfigError for whatever a marker wants to change."""
    for key, value in overrides.items():
        if value is not None:
            raise ConfigError(
                where,
                f"{key} cannot be changed: {board.name} is a board",
                mend="choose boards by features=[…] or target=[…]",
            )


@array_of(type="string", pattern=f"^(?:{_TAG.pattern})$")
def _tags(value: object) -> frozenset[str]:
    def check(one: object) -> str:
        if not isinstance(one, str):
            raise wrong_kind(one, "a tag")
        if not _TAG.fullmatch(one):
            raise BadValue(f"{values.shown(one)} is no tag", "letters, digits and _ . : = -")
        return one

    return frozenset(values.array(value, check, "an array of strings"))


@described(
    type="object",
    propertyNames={"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    additionalProperties={"type": "string"},
)
def _env(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, dict):
        raise wrong_kind(value, 'a table NAME = "value"')
    for name in value:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", str(name)):
            raise BadValue(f"{values.shown(name)} is no variable's name", at=f".{name}")
    return tuple((str(name), values.text(one)) for name, one in sorted(value.items()))


@described(enum=list(BETWEEN))
def _between(value: object) -> str:
    return values.choice(value, BETWEEN, "word for it")


KEYS: Mapping[str, Check] = {
    "arch": plain(values.arch),
    "between": plain(_between),
    "env": plain(_env),
    "features": plain(values.features),
    "place": plain(values.text),
    "tags": plain(_tags),
}
"""What is no table of a driver's."""
