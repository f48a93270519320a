"""The coverage of one source file: lines, functions, branches, and which tests reached them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import add

# A branch's outcomes are those of one function at one line: a template's instances, or a header
# in programs that were compiled otherwise, stay apart.
BranchKey = tuple[int, str]
# The line on which it begins, and its name.
FunctionKey = tuple[int, str]


@dataclass(slots=True)
class FileCoverage:
    """``numbers`` are the lines with code, ascending; ``counts`` how often each ran, beside them.

    ``tests`` has, for each test that ran any of it (its number among a shard's contexts), its own
    counts, again beside ``numbers``.
    """

    path: str
    numbers: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    branches: dict[BranchKey, list[int]] = field(default_factory=dict)
    functions: dict[FunctionKey, int] = field(default_factory=dict)
    tests: list[tuple[int, list[int]]] = field(default_factory=list)

    @property
    def lines(self) -> dict[int, int]:
        """Line → how often it ran."""
        return dict(zip(self.numbers, self.counts, strict=True))

    @property
    def reached(self) -> bool:
        return any(self.counts)


def merge_file(parts: Sequence[FileCoverage]) -> FileCoverage:
    """The sum of several runs' coverage of one file; the parts may become part of it."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    if any(part.numbers != first.numbers for part in parts):
        # Of two builds (of a header, say): a line that one of them has not is one it never ran.
        numbers = sorted(set().union(*(part.numbers for part in parts)))
        parts = [_on(numbers, part) for part in parts]
    tests: dict[int, list[int]] = {}
    for part in parts:
        for test, counts in part.tests:
            known = tests.get(test)
            tests[test] = counts if known is None else list(map(add, known, counts))
    return FileCoverage(
        first.path,
        parts[0].numbers,
        list(map(sum, zip(*(part.counts for part in parts), strict=True))),
        _branches(parts),
        _functions(parts),
        sorted(tests.items()),
    )


def subtract(later: FileCoverage, earlier: FileCoverage) -> FileCoverage:
    """What was counted since ``earlier``, by counters that were not reset in between."""
    before = earlier.lines
    counts = [
        max(0, count - before.get(number, 0))
        for number, count in zip(later.numbers, later.counts, strict=True)
    ]
    branches = {}
    for key, own in later.branches.items():
        known = earlier.branches.get(key, [])
        known = known if len(known) == len(own) else [0] * len(own)
        branches[key] = [max(0, a - b) for a, b in zip(own, known, strict=True)]
    functions = {
        key: max(0, count - earlier.functions.get(key, 0)) for key, count in later.functions.items()
    }
    return FileCoverage(later.path, list(later.numbers), counts, branches, functions)


def _on(numbers: list[int], part: FileCoverage) -> FileCoverage:
    """The same on more lines."""

    def spread(counts: list[int]) -> list[int]:
        known = dict(zip(part.numbers, counts, strict=True))
        return [known.get(number, 0) for number in numbers]

    tests = [(test, spread(counts)) for test, counts in part.tests]
    return FileCoverage(
        part.path, numbers, spread(part.counts), part.branches, part.functions, tests
    )


def _branches(parts: Sequence[FileCoverage]) -> dict[BranchKey, list[int]]:
    out = dict(parts[0].branches)
    for part in parts[1:]:
        for (line, block), counts in part.branches.items():
            key = (line, block)
            known = out.get(key)
            if known is not None and len(known) != len(counts):
                # Compiled otherwise: outcomes that are not the same must not be added.
                key = (line, f"{block}/{len(counts)}")
                known = out.get(key)
            out[key] = counts if known is None else list(map(add, known, counts))
    return out


def _functions(parts: Sequence[FileCoverage]) -> dict[FunctionKey, int]:
    out = dict(parts[0].functions)
    for part in parts[1:]:
        for key, count in part.functions.items():
            out[key] = out.get(key, 0) + count
    return out


@dataclass(slots=True)
class Totals:
    """How much of something was reached; sums of files."""

    lines: int = 0
    lines_hit: int = 0
    branches: int = 0
    branches_hit: int = 0
    functions: int = 0
    functions_hit: int = 0

    def add(self, file: FileCoverage) -> None:
        self.lines += len(file.numbers)
        self.lines_hit += len(file.counts) - file.counts.count(0)
        for counts in file.branches.values():
            self.branches += len(counts)
            self.branches_hit += len(counts) - counts.count(0)
        self.functions += len(file.functions)
        self.functions_hit += sum(map(bool, file.functions.values()))

    @property
    def percent(self) -> float:
        """Of the lines; 0 where there is none, so that no code is no success."""
        return 100.0 * self.lines_hit / self.lines if self.lines else 0.0


def totals_of(file: FileCoverage) -> Totals:
    found = Totals()
    found.add(file)
    return found
