"""Tables of boards.toml whose keys a driver knows: a board's console, power, boot stages, shell.

A driver declares its keys as a frozen dataclass, with :func:`key` for each; a :class:`Section` is
one such table as it was written, and :meth:`Section.options` makes the dataclass of it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pytest_hil.config import values
from pytest_hil.config.described import described
from pytest_hil.config.tables import Check, Problems, plain, quoted, read_keys
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import ConfigError

S = TypeVar("S")
T = TypeVar("T")

_CHECK, _HELP = "hil_check", "hil_help"
_REQUIRED = object()


def key(
    check: Callable[[object], Any],
    *,
    default: Any = _REQUIRED,
    help: str,
) -> Any:
    """A key of a driver's table. ``check`` is one of :mod:`pytest_hil.config.values`, or of the end
    of this module. Without ``default`` it is required.
    """
    return _field(plain(check), default, help)


def path_key(*, default: Any = _REQUIRED, help: str) -> Any:
    """A key that is a path, meant from the file's directory."""
    return _field(values.path, default, help)


def _field(check: Check, default: Any, help: str) -> Any:
    metadata = {_CHECK: check, _HELP: help}
    if default is _REQUIRED:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Key:
    """What the reference says of a key."""

    name: str
    help: str
    required: bool
    default: Any


def keys(kind: type) -> tuple[Key, ...]:
    """A driver's keys, in their order."""
    return tuple(
        Key(
            one.name,
            one.metadata[_HELP],
            one.default is dataclasses.MISSING,
            None if one.default is dataclasses.MISSING else one.default,
        )
        for one in dataclasses.fields(kind)
    )


def checks_of(kind: type) -> dict[str, Check]:
    """What checks a driver's keys, by their names."""
    return {one.name: one.metadata[_CHECK] for one in dataclasses.fields(kind)}


@dataclass(frozen=True, slots=True)
class Nothing:
    """No options at all."""


@dataclass(frozen=True, slots=True)
class Section:
    """One table as it was written. ``where`` names its place ("[target.rpi4.power]") in
    ``source``, the file; ``base``: where relative paths are meant from. Equal when written alike.
    """

    source: str
    where: str
    driver: str
    written: Mapping[str, object] = dataclasses.field(default_factory=dict, compare=False)
    base: Path = Path()
    # What makes two of them equal, and hashable.
    text: str = ""

    def options(self, own: type[T]) -> T:
        """The driver's own options. Raises ConfigError with everything that is wrong."""
        return self.both(Nothing, own)[1]

    def both(self, shared: type[S], own: type[T]) -> tuple[S, T]:
        """What every driver of its kind may have, and the driver's own. Raises ConfigError."""
        problems = Problems(self.source)
        found = self.read(shared, own, problems)
        problems.raise_if_any()
        names = {one.name for one in keys(shared)}
        return (
            shared(**{name: value for name, value in found.items() if name in names}),
            own(**{name: value for name, value in found.items() if name not in names}),
        )

    def read(self, shared: type, own: type, problems: Problems) -> dict[str, Any]:
        """The keys that are right; what is wrong is added to ``problems``."""
        checks = {**checks_of(shared), **checks_of(own)}
        prefix = f"{self.where} "
        found = read_keys(self.written, checks, base=self.base, prefix=prefix, problems=problems)
        for one in (*keys(shared), *keys(own)):
            if one.required and one.name not in self.written:
                problems.add(f"{prefix}{one.name}", "missing", one.help)
        return found

    def wrong(self, key: str, message: str, *, mend: str = "") -> ConfigError:
        """An error about one of its keys, for a driver to raise."""
        return ConfigError(f"{self.source}: {self.where} {key}", message, mend=mend)


def section(
    value: object, *, source: str, where: str, base: Path, default: str | None = None
) -> Section:
    """A table ``{driver = "…", …}``, or the driver's name alone. Raises BadValue."""
    if isinstance(value, str):
        value = {"driver": value}
    if not isinstance(value, dict):
        raise wrong_kind(value, 'a table with a key driver, or the name of a driver: "manual"')
    driver = value.get("driver", default)
    if driver is None:
        raise BadValue(
            "missing", 'write driver = "…"; `pytest-hil boards drivers` has all', at=".driver"
        )
    if not isinstance(driver, str):
        bad = wrong_kind(driver, "the name of a driver")
        bad.at = ".driver"
        raise bad
    rest = {str(name): item for name, item in value.items() if name != "driver"}
    return Section(source, where, driver, rest, base, repr(sorted(rest.items())))


# --- secrets ---


@dataclass(frozen=True, slots=True)
class Secret:
    """A password that is not in the file: where it is. ``reveal`` reads it, each time."""

    kind: str
    name: str

    def reveal(self) -> str:
        """The password. Raises ConfigError when it is not there."""
        if self.kind == "env":
            found = os.environ.get(self.name)
            if found is None:
                raise ConfigError(f"${self.name}", "is not set", mend=f"export {self.name}=…")
            return found
        return _from_keyring(self.name)


@described(
    type="object",
    properties={
        "env": {"type": "string", "description": "an environment variable's name"},
        "keyring": {"type": "string", "pattern": "^[^/]*/[^/]*$", "description": "service/user"},
    },
    minProperties=1,
    maxProperties=1,
    additionalProperties=False,
)
def secret(value: object) -> Secret:
    """``{env = "NAME"}`` or ``{keyring = "service/user"}``."""
    wanted = 'write {env = "NAME"} or {keyring = "service/user"}: passwords do not belong in a file'
    if isinstance(value, Secret):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise BadValue(f"found {values.kind_of(value)}, wanted where the password is", wanted)
    ((kind, name),) = value.items()
    if kind not in ("env", "keyring"):
        raise BadValue(f"{shown(kind)} is no place of passwords", wanted)
    name = values.text(name)
    if kind == "keyring" and name.count("/") != 1:
        raise BadValue(f"{shown(name)} is no service/user", wanted, at=f".{quoted(kind)}")
    return Secret(kind, name)


def _from_keyring(name: str) -> str:
    service, _, user = name.partition("/")
    try:
        import keyring  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigError(
            f"keyring {name}", "the package keyring is not installed", mend="pip install keyring"
        ) from None
    found: str | None = keyring.get_password(service, user)
    if found is None:
        raise ConfigError(
            f"keyring {name}", "has no such password", mend=f"keyring set {service} {user}"
        )
    return found


# --- checks that drivers share ---


@described(type="number", minimum=0, maximum=86400)
def seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_kind(value, "a number of seconds")
    if not 0 <= value <= 86400:
        raise BadValue(f"{shown(value)} is no time that somebody would wait", "0 to 86400 seconds")
    return float(value)


def count(low: int, high: int) -> Callable[[object], int]:
    """A check for whole numbers in a range."""

    @described(type="integer", minimum=low, maximum=high)
    def check(value: object) -> int:
        if type(value) is not int:
            raise wrong_kind(value, f"a whole number from {low} to {high}")
        if not low <= value <= high:
            raise BadValue(f"{shown(value)} is out of range", f"allowed: {low} to {high}")
        return value

    return check


def one_of(*words: str) -> Callable[[object], str]:
    """A check for one of a few words."""

    @described(enum=list(words))
    def check(value: object) -> str:
        return values.choice(value, words, "word that is allowed here")

    return check


def address(value: object) -> tuple[str, int]:
    """``"host:port"``, ``"[::1]:4001"``."""
    text = values.text(value)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if (
        not colon
        or not host
        or not port.isascii()
        or not port.isdigit()
        or not 0 < int(port) < 2**16
    ):
        raise BadValue(f"{shown(text)} is no address", 'write "host:port"')
    return host, int(port)


def url(value: object) -> str:
    """An http:// or https:// URL."""
    from urllib.parse import urlsplit

    text = values.text(value)
    try:
        parts = urlsplit(text)
        right = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        right = False
    if not right:
        raise BadValue(f"{shown(text)} is no http:// or https:// address")
    return text.rstrip("/")
