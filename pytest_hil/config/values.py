"""One value of boards.toml, an option or a marker: checked, and made what the model holds.

Every check takes the value as it was written and returns the model's form of it, or
raises :class:`BadValue`. TOML's values and Python's (a marker's) go through the same ones.
"""

from __future__ import annotations

import datetime
import platform
import re
import reprlib
from collections.abc import Callable, Iterable
from os import PathLike, fspath
from pathlib import Path
from typing import Literal, TypeVar, cast

from pytest_hil.config.described import array_of, described
from pytest_hil.config.model import Forward, MiB
from pytest_hil.errors import nearest

T = TypeVar("T")

ARCHES = ("aarch64", "arm", "riscv64", "x86_64")

# What others call them: Debian, the kernel, uname.
_ARCH_ALIASES = {
    "amd64": "x86_64",
    "x64": "x86_64",
    "x86-64": "x86_64",
    "arm64": "aarch64",
    "armhf": "arm",
    "armv6l": "arm",
    "armv7": "arm",
    "armv7l": "arm",
    "armv8l": "arm",
    "riscv": "riscv64",
}

NETWORKS = ("isolated", "none", "open")

_MAX_CPUS = 256
_MIN_SIZE, _MAX_SIZE = 2**10, 2**42
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([0-9]{1,9}) ?([KMGT])(?:i?B)?", re.IGNORECASE | re.ASCII)
_FORWARD = re.compile(r"([0-9]{1,5})(?:/(tcp|udp))?", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_FEATURE = re.compile(r"[a-z0-9][a-z0-9_-]*")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")


class BadValue(Exception):
    """A value is wrong. ``at`` is the place inside it, such as ``[1]`` or ``.sha256``."""

    def __init__(self, message: str, mend: str = "", *, at: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend
        self.at = at


class WrongKind(BadValue):
    """A value of a kind that is never right there."""


def shown(value: object) -> str:
    """A value as a message shows it: short, whatever was written."""
    if isinstance(value, bool):
        return "true" if value else "false"
    try:
        return _short.repr(value)
    except ValueError:
        # An integer of more digits than Python is willing to print.
        return "a huge number"


_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


def kind_of(value: object) -> str:
    """A value's type in the user's words."""
    names: tuple[tuple[type | tuple[type, ...], str], ...] = (
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a float"),
        (str, "a string"),
        ((datetime.date, datetime.time), "a date or time"),
        (dict, "a table"),
        ((list, tuple, set, frozenset), "an array"),
    )
    return next((name for kind, name in names if isinstance(value, kind)), type(value).__name__)


def wrong_kind(value: object, wanted: str) -> WrongKind:
    """``found "yes" (a string), wanted true or false``."""
    return WrongKind(f"found {shown(value)} ({kind_of(value)}), wanted {wanted}")


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_kind(value, "true or false")
    return value


def text(value: object) -> str:
    """One line of printable text: it goes into an argv or a kernel's command line."""
    if not isinstance(value, str):
        raise wrong_kind(value, "a string")
    if not value.isprintable():
        raise BadValue(f"{shown(value)} has a character that cannot be printed", "remove it")
    return value


def script(value: object) -> str:
    """Shell text, of several lines if need be."""
    if not isinstance(value, str):
        raise wrong_kind(value, "a string with a shell line")
    if any(not (c.isprintable() or c in "\n\t") for c in value):
        raise BadValue(f"{shown(value)} has a character that cannot be printed", "remove it")
    return value


@described(type="string", format="regex")
def regex(value: object) -> str:
    pattern = text(value)
    try:
        re.compile(pattern)
    # Warning: of a doubtful pattern, where the user's pytest makes warnings errors.
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise BadValue(f"{shown(value)} is not a regular expression: {error}") from None
    return pattern


def choice(value: object, allowed: Iterable[str], what: str) -> str:
    """One of a few words."""
    words = sorted(allowed)
    listing = ", ".join(f'"{word}"' for word in words)
    if not isinstance(value, str):
        raise wrong_kind(value, f"one of {listing}")
    if value not in words:
        raise BadValue(f"{shown(value)} is no {what}", f"allowed: {listing}{_near(value, words)}")
    return value


@described(enum=list(ARCHES))
def arch(value: object) -> str:
    if isinstance(value, str) and value.lower() in _ARCH_ALIASES:
        right = _ARCH_ALIASES[value.lower()]
        raise BadValue(f"{shown(value)} is no architecture", f'write QEMU\'s name: "{right}"')
    return choice(value, ARCHES, "architecture that pytest-hil knows")


def host_arch() -> str:
    """The host's architecture by QEMU's name; "x86_64" on a host that is none of ours.

    Emulation runs anywhere, so that such a host has a default target too.
    """
    machine = platform.machine().lower()
    name = _ARCH_ALIASES.get(machine, machine)
    return name if name in ARCHES else "x86_64"


@described(enum=list(NETWORKS))
def network(value: object) -> Literal["isolated", "open", "none"]:
    word = choice(value, NETWORKS, "kind of network")
    return cast("Literal['isolated', 'open', 'none']", word)


@described(
    anyOf=[
        {"type": "string", "pattern": "^[0-9]{1,9} ?[KMGTkmgt]([iI]?[bB])?$"},
        {"type": "integer", "minimum": 1},
    ]
)
def size(value: object) -> int:
    """Bytes: from ``"512M"``, ``"2GiB"``, or an integer of MiB."""
    wanted = 'write a size such as "512M" or "2G", or a whole number of MiB'
    if type(value) is int:
        count = value * MiB
    elif isinstance(value, str) and (match := _SIZE.fullmatch(value)):
        count = int(match[1]) * _UNITS[match[2].upper()]
    else:
        raise BadValue(f"{shown(value)} is not a size", wanted)
    if not _MIN_SIZE <= count <= _MAX_SIZE:
        raise BadValue(f"{shown(value)} is no size that a machine can have", "allowed: 1K to 4T")
    return count


@described(type="integer", minimum=1, maximum=_MAX_CPUS)
def cpus(value: object) -> int:
    if type(value) is not int:
        raise wrong_kind(value, f"a whole number of CPUs from 1 to {_MAX_CPUS}")
    if not 1 <= value <= _MAX_CPUS:
        raise BadValue(f"{shown(value)} is no number of CPUs", f"allowed: 1 to {_MAX_CPUS}")
    return value


def name(value: str) -> str:
    """A target's or image's name: it becomes part of paths, options and test ids."""
    if not NAME.fullmatch(value):
        raise BadValue(
            f"{shown(value)} cannot be a name",
            "allowed: letters, digits, - _ . (not first - or .), at most 64 of them",
        )
    return value


def array(value: object, check: Callable[[object], T], wanted: str) -> tuple[T, ...]:
    """Every item checked; an item's error says which one it is."""
    if isinstance(value, (set, frozenset)):
        value = sorted(value, key=str)
    if not isinstance(value, (list, tuple)):
        raise wrong_kind(value, wanted)
    items = []
    for position, item in enumerate(value):
        try:
            items.append(check(item))
        except BadValue as bad:
            bad.at = f"[{position}]{bad.at}"
            raise
    return tuple(items)


@array_of(type="string")
def texts(value: object) -> tuple[str, ...]:
    return array(value, text, "an array of strings")


@array_of(type="string")
def scripts(value: object) -> tuple[str, ...]:
    return array(value, script, "an array of strings with shell lines")


@array_of(type="string", pattern=f"^(?:{_FEATURE.pattern})$")
def features(value: object) -> frozenset[str]:
    return frozenset(array(value, _word(_FEATURE, "feature's name"), "an array of strings"))


@array_of(type="string", pattern=f"^(?:{_PACKAGE.pattern})$")
def packages(value: object) -> tuple[str, ...]:
    return array(value, _word(_PACKAGE, "Debian package's name"), "an array of package names")


@array_of(type="string", pattern=f"^(?:{_MODULE.pattern})$")
def modules(value: object) -> tuple[str, ...]:
    return array(value, _word(_MODULE, "kernel module's name"), "an array of module names")


@array_of(
    anyOf=[
        {"type": "integer", "minimum": 1, "maximum": 65535},
        {"type": "string", "pattern": f"^(?:{_FORWARD.pattern})$"},
    ]
)
def forwards(value: object) -> tuple[Forward, ...]:
    """Guest ports: ``22``, ``"22"``, ``"8080/udp"``; each once."""
    found = array(value, _forward, 'an array of ports, such as [22, "8080/udp"]')
    twice = next((one for one in found if found.count(one) > 1), None)
    if twice:
        raise BadValue(f"{twice.guest_port}/{twice.protocol} is there twice", "remove one")
    return found


@described(type="string", minLength=1)
def path(value: object, base: Path) -> Path:
    """An absolute path; a relative one is meant from ``base``. It need not exist (yet)."""
    if isinstance(value, PathLike):
        value = fspath(value)
    if not isinstance(value, str):
        raise wrong_kind(value, "a path")
    if not value.strip() or "\0" in value:
        raise BadValue(f"{shown(value)} is not a path")
    try:
        return base / Path(value).expanduser()
    except RuntimeError:
        raise BadValue(f"{shown(value)}: there is no such user's home directory") from None


def _forward(value: object) -> Forward:
    if isinstance(value, Forward):
        return value
    match = _FORWARD.fullmatch(value) if isinstance(value, str) else None
    port = value if type(value) is int else int(match[1]) if match else 0
    if not 0 < port < 2**16:
        raise BadValue(f"{shown(value)} is no port", 'write 22, "22/tcp" or "53/udp"; 1 to 65535')
    return Forward(port, "udp" if match and match[2] == "udp" else "tcp")


def _word(pattern: re.Pattern[str], what: str) -> Callable[[object], str]:
    """A check for words of one form."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise wrong_kind(value, f"a {what}")
        if not pattern.fullmatch(value):
            raise BadValue(f"{shown(value)} is no {what}")
        return value

    return check


def _near(word: str, words: Iterable[str]) -> str:
    """``; did you mean 'x'?`` if one is near, else nothing: the listing is there already."""
    sentence = nearest(word, words)
    return f"; {sentence}" if sentence.startswith("did you mean") else ""
