"""A table for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pytest_hil.coverage.model import FileCoverage, Totals, totals_of
from pytest_hil.coverage.report.names import short
from pytest_hil.errors import visible

# A file's missing lines are shown so long.
_MISSING = 60


def table(files: Iterable[FileCoverage], *, base: Path) -> Iterator[str]:
    """Its lines, header and sum included."""
    rows = []
    whole = Totals()
    for file in files:
        whole.add(file)
        rows.append((visible(short(file.path, base)), totals_of(file), missing(file)))
    width = max([len("TOTAL"), *(len(name) for name, *_ in rows)])
    yield f"{'':{width}}  {'lines':>7} {'missed':>7} {'cover':>6} {'branches':>9}  missing"
    for name, totals, gaps in rows:
        yield f"{name:{width}}  {_figures(totals)}  {gaps}".rstrip()
    yield f"{'TOTAL':{width}}  {_figures(whole)}"


def _figures(totals: Totals) -> str:
    branches = f"{totals.branches_hit}/{totals.branches}" if totals.branches else "-"
    missed = totals.lines - totals.lines_hit
    # Never 100 % while a line is missing.
    percent = int(totals.percent)
    return f"{totals.lines:7} {missed:7} {percent:5}% {branches:>9}"


def missing(file: FileCoverage) -> str:
    """The lines that did not run, in ranges; lines without code are no gap between two."""
    ranges: list[list[int]] = []
    last_hit = True
    for number, count in zip(file.numbers, file.counts, strict=True):
        if count == 0:
            if last_hit:
                ranges.append([number, number])
            ranges[-1][1] = number
        last_hit = count != 0
    text = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return text if len(text) <= _MISSING else f"{text[: text.rindex(',', 0, _MISSING)]}, …"
