"""A target's kernel, as tests ask for it: its version, how it was configured, what tainted it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, total_ordering

from pytest_hil.errors import Unsupported

# Where a running kernel may have its own configuration; the first that is there.
_READ_CONFIG = (
    "zcat /proc/config.gz 2>/dev/null || cat /boot/config-$(uname -r) 2>/dev/null || "
    "cat /lib/modules/$(uname -r)/config 2>/dev/null"
)
_ITEM = re.compile(r"^CONFIG_(\w+)=(.*)$|^# CONFIG_(\w+) is not set$", re.MULTILINE)
_REQUIREMENT = re.compile(r"\s*(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)\s*")

# Documentation/admin-guide/tainted-kernels.rst: bit → letter and meaning.
TAINTS = (
    ("P", "a proprietary module was loaded"),
    ("F", "a module was loaded by force"),
    ("S", "the kernel runs on hardware that is out of its specification"),
    ("R", "a module was unloaded by force"),
    ("M", "the processor reported a machine check"),
    ("B", "a bad page was found"),
    ("U", "something in user space asked for it"),
    ("D", "the kernel died recently: an Oops or a BUG"),
    ("A", "somebody replaced an ACPI table"),
    ("W", "there was a warning"),
    ("C", "a staging driver was loaded"),
    ("I", "a bug in the firmware is worked around"),
    ("O", "a module from outside of the kernel's tree was loaded"),
    ("E", "a module without a signature was loaded"),
    ("L", "there was a soft lockup"),
    ("K", "the kernel was live-patched"),
    ("X", "the distribution says so"),
    ("T", "structures are laid out at random"),
    ("N", "an in-kernel test was run"),
)

# What is worth a word of its own, and the configuration that means it.
_FEATURES = {
    "kasan": "KASAN",
    "kcsan": "KCSAN",
    "kfence": "KFENCE",
    "kmsan": "KMSAN",
    "kmemleak": "DEBUG_KMEMLEAK",
    "lockdep": "PROVE_LOCKING",
    "ubsan": "UBSAN",
    "gcov": "GCOV_KERNEL",
    "kcov": "KCOV",
    "fault-injection": "FAULT_INJECTION",
    "ftrace": "FUNCTION_TRACER",
    "kprobes": "KPROBES",
    "modules": "MODULES",
}


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A kernel's version. Compares with others, and with strings such as "6.1"."""

    numbers: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Version:
        """The numbers that a release begins with: "6.1.0-37-amd64" is 6.1.0."""
        found = re.match(r"\d+(?:\.\d+)*", text)
        if found is None:
            raise ValueError(f"{text!r} is no kernel's version")
        return cls(tuple(int(part) for part in found[0].split(".")))

    def _other(self, other: object) -> tuple[int, ...] | None:
        if isinstance(other, str):
            other = Version.of(other)
        return other.numbers if isinstance(other, Version) else None

    def __eq__(self, other: object) -> bool:
        numbers = self._other(other)
        return NotImplemented if numbers is None else _padded(self.numbers) == _padded(numbers)

    def __lt__(self, other: object) -> bool:
        numbers = self._other(other)
        return NotImplemented if numbers is None else _padded(self.numbers) < _padded(numbers)

    def __hash__(self) -> int:
        return hash(_padded(self.numbers))

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))


def _padded(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """6.1 and 6.1.0 are one version."""
    return (*numbers, *(0,) * (4 - len(numbers)))


class KernelConfig(Mapping[str, str]):
    """A kernel's .config: ``config["KASAN"]`` is "y", "m", "n" or a value; CONFIG_ may stand before
    it. What the file does not mention is "n".
    """

    def __init__(self, text: str) -> None:
        self._items = {
            found[1] or found[3]: "n" if found[3] else found[2].strip('"')
            for found in _ITEM.finditer(text)
        }

    def __getitem__(self, name: str) -> str:
        return self._items.get(name.removeprefix("CONFIG_"), "n")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self[name] not in ("n", "")

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


@dataclass(frozen=True, slots=True)
class Taint:
    """Why a kernel is tainted: ``letters`` as in its reports, ``meanings`` in words."""

    bits: int

    @property
    def letters(self) -> str:
        return "".join(letter for n, (letter, _) in enumerate(TAINTS) if self.bits >> n & 1)

    @property
    def meanings(self) -> tuple[str, ...]:
        return tuple(words for n, (_, words) in enumerate(TAINTS) if self.bits >> n & 1)

    def __contains__(self, letter: object) -> bool:
        return isinstance(letter, str) and letter in self.letters

    def __bool__(self) -> bool:
        return self.bits != 0


class Kernel:
    """``hil.kernel``: read from the target when it is asked for, and then known.

    ``run`` runs a command and gives what it printed; ``config`` is the text of the .config where
    that is known without the target.
    """

    def __init__(self, name: str, run: Callable[[str], str], *, config: str | None = None) -> None:
        self._name = name
        self._run = run
        self._config = config

    def __repr__(self) -> str:
        return f"<Kernel of {self._name}>"

    @cached_property
    def release(self) -> str:
        """What ``uname -r`` says: "6.1.0-37-amd64"."""
        return self._run("uname -r").strip()

    @property
    def version(self) -> Version:
        return Version.of(self.release)

    @cached_property
    def config(self) -> KernelConfig:
        """How it was configured. Raises Unsupported where that is not to be found."""
        text = self._run(_READ_CONFIG) if self._config is None else self._config
        if "CONFIG_" not in text:
            raise Unsupported(
                self._name,
                "kernel configuration to be read",
                mend="build the kernel with CONFIG_IKCONFIG_PROC=y, or put its .config at "
                "/boot/config-$(uname -r)",
            )
        return KernelConfig(text)

    @property
    def features(self) -> frozenset[str]:
        """Words for what it was built with: "kasan", "lockdep", "gcov", …"""
        return frozenset(word for word, name in _FEATURES.items() if name in self.config)

    @property
    def taint(self) -> Taint:
        """What tainted it until now; asked anew each time."""
        return Taint(int(self._run("cat /proc/sys/kernel/tainted").strip() or 0))


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a test wants of a kernel: versions such as (">=", 6.1), and configuration.

    ``config`` are names, of which "KASAN" wants y or m, and "HZ=1000" that value.
    """

    versions: tuple[tuple[str, Version], ...] = ()
    config: tuple[str, ...] = field(default=())

    def __bool__(self) -> bool:
        return bool(self.versions or self.config)

    def __add__(self, other: Requirement) -> Requirement:
        return Requirement((*self.versions, *other.versions), (*self.config, *other.config))

    def unmet(self, kernel: Kernel) -> str:
        """Why a kernel does not do; "" if it does. Raises what its configuration raises."""
        for operator, version in self.versions:
            if not _holds(kernel.version, operator, version):
                return f"needs a kernel {operator}{version}, this is {kernel.release}"
        for wanted in self.config:
            name, equals, value = wanted.removeprefix("CONFIG_").partition("=")
            got = kernel.config[name]
            if (got != value) if equals else (name not in kernel.config):
                return f"needs a kernel with CONFIG_{name}={value or 'y'}, this one has {got}"
        return ""


def is_requirement(text: str) -> bool:
    """Whether a text is like ">=6.1", and no file's name."""
    return bool(re.match(r"\s*[<>=!]", text))


def versions(text: str) -> tuple[tuple[str, Version], ...]:
    """``">=6.1, <6.6"``. Raises ValueError."""
    found = []
    for part in text.split(","):
        one = _REQUIREMENT.fullmatch(part)
        if one is None:
            raise ValueError(f"{part.strip()!r} is no condition for a version, such as '>=6.1'")
        found.append((one[1], Version.of(one[2])))
    return tuple(found)


def names(wanted: Iterable[str]) -> tuple[str, ...]:
    """Names of a configuration. Raises ValueError."""
    found = tuple(wanted)
    for one in found:
        if not re.fullmatch(r"\w+(=.*)?", one):
            raise ValueError(f"{one!r} is no name of a kernel's configuration, such as 'KASAN'")
    return found


def _holds(got: Version, operator: str, wanted: Version) -> bool:
    # "==6.1" means all of 6.1.x.
    shortened = Version(got.numbers[: len(wanted.numbers)])
    match operator:
        case "==":
            return shortened == wanted
        case "!=":
            return shortened != wanted
        case ">=":
            return got >= wanted
        case "<=":
            return shortened <= wanted
        case ">":
            return shortened > wanted
        case _:
            return got < wanted
