"""Where a build's files are on this host, and which source files count."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import lru_cache
from pathlib import Path

from pytest_hil.coverage.model import FileCoverage

# Those of lcov and gcovr, so that one mark serves all.
_EXCLUDED_LINE = re.compile(r"\b(?:LCOV|GCOVR?|HIL)_EXCL_LINE\b")
_EXCLUDED_FROM = re.compile(r"\b(?:LCOV|GCOVR?|HIL)_EXCL_START\b")
_EXCLUDED_TO = re.compile(r"\b(?:LCOV|GCOVR?|HIL)_EXCL_STOP\b")
_EXCLUDED_BRANCHES = re.compile(r"\b(?:LCOV|GCOVR?|HIL)_EXCL_BR_LINE\b")


@dataclass(frozen=True, slots=True)
class Sources:
    """``roots``: directories or files that count. ``omit``: patterns of paths that do not.

    ``mapping``: pairs of a directory where it was built, and the same here. ``builds``: where
    compilers' notes may be, besides.
    """

    roots: tuple[Path, ...]
    omit: tuple[str, ...] = ()
    mapping: tuple[tuple[str, str], ...] = ()
    builds: tuple[Path, ...] = ()

    @property
    def searched(self) -> tuple[Path, ...]:
        """Where notes are searched that are not where the compiler wrote them."""
        places = (*self.roots, *(Path(here) for _, here in self.mapping), *self.builds)
        return tuple(dict.fromkeys(places))

    def here(self, path: str) -> str:
        """A path of the build as it is on this host; tidied, links left alone."""
        path = os.path.normpath(path)
        for built, here in sorted(self.mapping, key=lambda pair: -len(pair[0])):
            built = os.path.normpath(built)
            if path == built or path.startswith(built.rstrip("/") + "/"):
                return os.path.normpath(here + "/" + path[len(built) :])
        return path

    def has(self, built: str) -> bool:
        """Whether a path of the build is below one of these places."""
        here = Path(self.here(built))
        return any(here == place or here.is_relative_to(place) for place in self.searched)

    def wanted(self, path: str) -> bool:
        """Whether a source file (a path of this host) counts."""
        real = Path(path)
        if not any(real == root or real.is_relative_to(root) for root in self.roots):
            return False
        return not any(
            fnmatch(path, pattern) or fnmatch(short, pattern)
            for pattern in self.omit
            for short in self._relative(real)
        )

    def _relative(self, path: Path) -> Iterator[str]:
        for root in self.roots:
            if path.is_relative_to(root):
                yield path.relative_to(root).as_posix()

    def excluded(self, file: FileCoverage) -> FileCoverage:
        """The same without the lines that its source excludes."""
        lines, branches = _marks(file.path)
        if not lines and not branches:
            return file
        kept = [number not in lines for number in file.numbers]
        gone = lines | branches

        def thin(values: Sequence[int]) -> list[int]:
            return [value for value, keep in zip(values, kept, strict=True) if keep]

        return FileCoverage(
            file.path,
            thin(file.numbers),
            thin(file.counts),
            {key: own for key, own in file.branches.items() if key[0] not in gone},
            {key: own for key, own in file.functions.items() if key[0] not in lines},
            [(test, thin(counts)) for test, counts in file.tests],
        )


def parse_mapping(texts: Iterable[str], beside: Path) -> tuple[tuple[str, str], ...]:
    """``BUILT=HERE`` of each, HERE from a directory on; ValueError that says what is wrong."""
    out = []
    for text in texts:
        built, equals, here = text.partition("=")
        if not equals or not built.startswith("/") or not here:
            raise ValueError(f"{text!r} is not BUILT=HERE, such as /build/src=src")
        out.append((built, os.path.normpath(beside / Path(here).expanduser())))
    return tuple(out)


@lru_cache(maxsize=4096)
def _marks(path: str) -> tuple[frozenset[int], frozenset[int]]:
    """The lines that do not count, and those whose branches do not; none where it has no source."""
    lines: set[int] = set()
    branches: set[int] = set()
    inside = False
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                if "_EXCL_" not in line:
                    if inside:
                        lines.add(number)
                    continue
                inside = inside or bool(_EXCLUDED_FROM.search(line))
                if inside or _EXCLUDED_LINE.search(line):
                    lines.add(number)
                if _EXCLUDED_TO.search(line):
                    inside = False
                if _EXCLUDED_BRANCHES.search(line):
                    branches.add(number)
    except OSError:
        return frozenset(), frozenset()
    return frozenset(lines), frozenset(branches)
