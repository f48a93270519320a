"""Coverage on disk, and the merger: one file of the source at a time, however many shards.

A shard is lines of JSON: a header with its contexts (the tests' names), one line for each source
file, directory by directory, and a last line that says how many there were. It appears by one
rename; one without its last line was cut off, and is not counted.
"""

from __future__ import annotations

import contextlib
import heapq
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any, Final

from pytest_hil.coverage.model import FileCoverage, merge_file
from pytest_hil.errors import CoverageError

_FORMAT: Final = "pytest-hil coverage"
_VERSION: Final = 1
# So many shards are open at once.
FAN_IN: Final = 64
# The last line is short; it is looked for in so many bytes.
_TAIL: Final = 64

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=True).encode


class ShardWriter:
    """Writes a shard. A context manager: left by an exception, there is none."""

    def __init__(self, path: Path, contexts: Sequence[str]) -> None:
        self._path = path
        self._part = path.with_name(f".{path.name}.{os.getpid()}")
        self._contexts = contexts
        self._count = 0
        self._last = ""
        self._file: IO[str]

    def __enter__(self) -> ShardWriter:
        self._file = self._part.open("w", encoding="ascii")
        self._write({"format": _FORMAT, "version": _VERSION, "contexts": list(self._contexts)})
        return self

    def add(self, file: FileCoverage) -> None:
        """The next source file, in :func:`order`."""
        if self._count and order(file.path) <= order(self._last):
            raise ValueError(f"{file.path} after {self._last}: they must be in order")
        self._last = file.path
        self._count += 1
        out: dict[str, Any] = {
            "path": file.path,
            "numbers": file.numbers,
            "counts": file.counts,
            "branches": [[line, name, c] for (line, name), c in sorted(file.branches.items())],
            "functions": [[line, name, c] for (line, name), c in sorted(file.functions.items())],
        }
        # One context: what it ran is all that was run.
        if len(self._contexts) > 1:
            out["tests"] = file.tests
        self._write(out)

    def _write(self, content: dict[str, Any]) -> None:
        self._file.write(_encode(content))
        self._file.write("\n")

    def __exit__(self, kind: object, *_exc: object) -> None:
        try:
            with self._file:
                self._write({"end": self._count})
            if kind is None:
                self._part.replace(self._path)
        finally:
            if kind is not None or self._part.exists():
                with contextlib.suppress(OSError):
                    self._part.unlink()


def write(path: Path, contexts: Sequence[str], files: Iterable[FileCoverage]) -> None:
    """A whole shard of files in any order."""
    with ShardWriter(path, contexts) as writer:
        for file in sorted(files, key=lambda each: order(each.path)):
            writer.add(file)


class Shard:
    """A shard to read. Raises CoverageError when it is cut off or is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                header = _decode(path, file.readline())
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - _TAIL))
                tail = file.read().rsplit(b"\n", 2)
        except OSError as error:
            raise CoverageError(f"{path} cannot be read: {error.strerror}") from None
        if header.get("format") != _FORMAT or header.get("version") != _VERSION:
            raise CoverageError(f"{path} is no coverage of this version of pytest-hil")
        if len(tail) < 2 or tail[-1] or not tail[-2].startswith(b'{"end":'):
            raise CoverageError(f"{path} was cut off after {size} bytes; nothing of it was counted")
        self._count = _decode(path, tail[-2])["end"]
        self.contexts: list[str] = header["contexts"]

    def __iter__(self) -> Iterator[FileCoverage]:
        """Its files, one at a time, in :func:`order`."""
        single = len(self.contexts) == 1
        count = 0
        with self.path.open("rb") as file:
            file.readline()
            for line in file:
                found = _decode(self.path, line)
                if "end" in found:
                    break
                count += 1
                yield _file(found, single=single)
        if count != self._count:
            raise CoverageError(f"{self.path} has {count} files, and says {self._count}")


def merged(shards: Sequence[Shard]) -> tuple[list[str], Iterator[FileCoverage]]:
    """All contexts of several shards, and their files, each merged over all of them."""
    contexts: dict[str, int] = {}
    renumbered = []
    for shard in shards:
        known = [contexts.setdefault(name, len(contexts)) for name in shard.contexts]
        renumbered.append(_renumber(shard, known))

    def files() -> Iterator[FileCoverage]:
        for _path, group in groupby(heapq.merge(*renumbered, key=itemgetter(0)), itemgetter(0)):
            yield merge_file([file for _, file in group])

    return list(contexts), files()


def merge(
    paths: Iterable[Path],
    out: Path,
    *,
    broken: list[CoverageError] | None = None,
    fan_in: int = FAN_IN,
) -> Shard:
    """Merge shards into one, at most ``fan_in`` open at once.

    What is wrong with a shard is raised, or goes to ``broken``, and the rest is merged.
    """
    shards = []
    for path in sorted(paths):
        try:
            shards.append(Shard(path))
        except CoverageError as error:
            if broken is None:
                raise
            broken.append(error)
    steps: list[Path] = []
    try:
        while len(shards) > fan_in:
            rest = []
            for at in range(0, len(shards), fan_in):
                step = out.with_name(f".{out.name}.{len(steps)}")
                steps.append(step)
                rest.append(_merge_once(shards[at : at + fan_in], step))
            shards = rest
        return _merge_once(shards, out)
    finally:
        for step in steps:
            step.unlink(missing_ok=True)


def _merge_once(shards: Sequence[Shard], out: Path) -> Shard:
    contexts, files = merged(shards)
    with ShardWriter(out, contexts) as writer:
        for file in files:
            writer.add(file)
    return Shard(out)


def order(path: str) -> tuple[str, ...]:
    """What files are sorted by: all of one directory, then those of the directories in it."""
    return path.rpartition("/")


def _renumber(shard: Shard, known: list[int]) -> Iterator[tuple[tuple[str, ...], FileCoverage]]:
    for file in shard:
        file.tests = [(known[test], counts) for test, counts in file.tests]
        yield order(file.path), file


def _file(found: dict[str, Any], *, single: bool) -> FileCoverage:
    counts = found["counts"]
    if single:
        tests = [(0, counts)] if any(counts) else []
    else:
        tests = [(test, own) for test, own in found["tests"]]
    return FileCoverage(
        found["path"],
        found["numbers"],
        counts,
        {(line, name): own for line, name, own in found["branches"]},
        {(line, name): own for line, name, own in found["functions"]},
        tests,
    )


def _decode(path: Path, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        raise CoverageError(f"{path} is damaged: a line of it is no JSON") from None
    if not isinstance(found, dict):
        raise CoverageError(f"{path} is damaged: a line of it is no object")
    return found
