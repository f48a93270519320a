"""From gcc's counters to lines, functions and branches: by gcc's own gcov."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pytest_hil import process
from pytest_hil.coverage import records
from pytest_hil.coverage.model import BranchKey, FileCoverage, FunctionKey, merge_file
from pytest_hil.coverage.notes import Notes
from pytest_hil.coverage.paths import Sources
from pytest_hil.errors import CoverageError, ProcessFailed, ToolMissing

# So many files are given to one gcov: its answer has about 100 kB a file.
_BATCH = 100
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Counters:
    """One .gcda: where it is, and the path that its program writes it to."""

    path: Path
    built: str
    kernel: bool = False


@dataclass(slots=True)
class Read:
    """What several .gcda came to. ``problems``: what could not be counted, and why."""

    files: list[FileCoverage] = field(default_factory=list)
    problems: list[CoverageError] = field(default_factory=list)


class Gcov:
    """``program``: the gcov to use; "" is the one that fits the compiler."""

    def __init__(self, sources: Sources, *, program: str = "") -> None:
        self._sources = sources
        self._notes = Notes(sources)
        self._program = program
        self._known: dict[int, str] = {}

    def read(self, counters: Iterable[Counters]) -> Read:
        """Count all of them, one process for many; what cannot be counted is said."""
        out = Read()
        ready: dict[str, list[tuple[Counters, Path]]] = {}
        for each in counters:
            try:
                header = records.read_data(_content(each), each.built, kernel=each.kernel)
                notes = self._notes.find(each.built, header, kernel=each.kernel)
                ready.setdefault(self._gcov(header.gcc, each.built), []).append((each, notes))
            except (CoverageError, ToolMissing) as error:
                out.problems.append(_as_problem(error))
        found: dict[str, list[FileCoverage]] = {}
        for program, pairs in ready.items():
            for at in range(0, len(pairs), _BATCH):
                batch = pairs[at : at + _BATCH]
                try:
                    for file in self._count(program, batch):
                        found.setdefault(file.path, []).append(file)
                except (CoverageError, ProcessFailed) as error:
                    out.problems.append(_as_problem(error))
        out.files = [merge_file(parts) for _, parts in sorted(found.items())]
        return out

    def _gcov(self, major: int, name: str) -> str:
        """The gcov of gcc ``major``: the formats change with each."""
        if major not in self._known:
            candidates = [self._program] if self._program else [f"gcov-{major}", "gcov"]
            there = [each for each in candidates if shutil.which(each)]
            if not there:
                mend = f"install it: apt-get install gcc-{major}; or name one: --hil-cov-gcov"
                raise ToolMissing(candidates[0], mend=mend)
            versions = {each: _version(each) for each in there}
            fits = [each for each, version in versions.items() if version == major]
            if not fits:
                raise CoverageError(
                    f"{name} was compiled by gcc {major}, and "
                    + ", ".join(f"{each} is of gcc {have}" for each, have in versions.items()),
                    mend=f"name the compiler's own: --hil-cov-gcov=gcov-{major} (of a "
                    "cross-compiler: its prefix and -gcov)",
                )
            self._known[major] = fits[0]
        return self._known[major]

    def _count(
        self, program: str, batch: Sequence[tuple[Counters, Path]]
    ) -> Iterator[FileCoverage]:
        with tempfile.TemporaryDirectory(prefix="hil-gcov-") as scratch:
            for number, (each, notes) in enumerate(batch):
                # gcov finds the one by the other's name, and writes nothing with --stdout.
                Path(scratch, f"{number}.gcda").symlink_to(each.path.absolute())
                Path(scratch, f"{number}.gcno").symlink_to(notes.absolute())
            names = [f"{number}.gcda" for number in range(len(batch))]
            argv = [program, "--json-format", "--stdout", "--branch-probabilities", *names]
            done = process.run(argv, timeout=_TIMEOUT, cwd=scratch)
        answers = done.stdout.splitlines()
        said = done.stderr.decode(errors="replace")
        if len(answers) != len(batch) or re.search("stamp mismatch|corrupt|cannot open", said):
            raise CoverageError(
                f"{program} did not read all of {len(batch)} files; it said:\n{said[-2000:]}"
            )
        for line in answers:
            yield from self._files(json.loads(line))

    def _files(self, unit: dict[str, Any]) -> Iterator[FileCoverage]:
        for found in unit["files"]:
            path = self._path(unit.get("current_working_directory", "/"), found["file"])
            if path is not None and found["lines"]:
                yield self._sources.excluded(_file(path, found))

    def _path(self, directory: str, name: str) -> str | None:
        """Where a source file is here; None for one that does not count."""
        if name.startswith("<"):
            return None
        path = self._sources.here(str(Path(directory, name)))
        return path if self._sources.wanted(path) else None


def _content(counters: Counters) -> bytes:
    try:
        if counters.path.stat().st_size > records.MAX_SIZE:
            raise CoverageError(f"{counters.built} has more than {records.MAX_SIZE} bytes")
        return counters.path.read_bytes()
    except OSError as error:
        raise CoverageError(f"{counters.path} cannot be read: {error.strerror}") from None


def _version(program: str) -> int:
    said = process.run([program, "--version"], check=False).stdout.decode(errors="replace")
    found = re.search(r"gcov[^\n]*\s(\d+)\.\d+", said)
    return int(found[1]) if found else 0


def _file(path: str, found: dict[str, Any]) -> FileCoverage:
    """gcov names a line once for each function that has code on it."""
    lines: dict[int, int] = {}
    branches: dict[BranchKey, list[int]] = {}
    functions: dict[FunctionKey, int] = {}
    for line in found["lines"]:
        number = line["line_number"]
        lines[number] = lines.get(number, 0) + line["count"]
        if line["branches"]:
            key = (number, line.get("function_name", ""))
            branches[key] = branches.get(key, []) + [each["count"] for each in line["branches"]]
    for function in found["functions"]:
        name = function.get("demangled_name") or function["name"]
        where = (function["start_line"], name)
        functions[where] = functions.get(where, 0) + function["execution_count"]
    numbers = sorted(lines)
    return FileCoverage(path, numbers, [lines[n] for n in numbers], branches, functions)


def _as_problem(error: CoverageError | ToolMissing | ProcessFailed) -> CoverageError:
    if isinstance(error, CoverageError):
        return error
    return CoverageError(error.message, mend=error.mend)
