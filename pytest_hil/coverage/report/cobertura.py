"""Cobertura's XML, as GitLab, Jenkins and Azure read it: a package is a directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import IO
from xml.sax.saxutils import escape, quoteattr

from pytest_hil.coverage.model import FileCoverage, Totals, totals_of
from pytest_hil.coverage.report.names import short
from pytest_hil.coverage.shard import Shard

_DOCTYPE = '<!DOCTYPE coverage SYSTEM "https://cobertura.sourceforge.net/xml/coverage-04.dtd">'


def write(shard: Shard, path: Path, *, base: Path) -> None:
    """``base`` is the source directory that its file names start from."""
    packages: dict[str, Totals] = {}
    whole = Totals()
    for file in shard:
        packages.setdefault(_package(file, base), Totals()).add(file)
        whole.add(file)
    with path.open("w", encoding="utf-8", errors="replace") as out:
        out.write(f"<?xml version='1.0' encoding='UTF-8'?>\n{_DOCTYPE}\n")
        out.write(
            f'<coverage {_rates(whole)} lines-covered="{whole.lines_hit}" '
            f'lines-valid="{whole.lines}" branches-covered="{whole.branches_hit}" '
            f'branches-valid="{whole.branches}" complexity="0" '
            f'timestamp="{int(time.time())}" version="pytest-hil">\n'
            f"<sources><source>{escape(_clean(str(base)))}</source></sources>\n<packages>\n"
        )
        for package, files in groupby(shard, lambda file: _package(file, base)):
            rates = _rates(packages[package])
            out.write(f'<package name={_attribute(package)} {rates} complexity="0">\n<classes>\n')
            for file in files:
                _write_class(out, file, base)
            out.write("</classes>\n</package>\n")
        out.write("</packages>\n</coverage>\n")


def _package(file: FileCoverage, base: Path) -> str:
    """The shard is in the order of directories: one is all in one place."""
    return str(PurePosixPath(short(file.path, base)).parent).strip("/").replace("/", ".")


def _write_class(out: IO[str], file: FileCoverage, base: Path) -> None:
    name = short(file.path, base)
    known = file.lines
    out.write(
        f"<class name={_attribute(PurePosixPath(name).name)} filename={_attribute(name)} "
        f'{_rates(totals_of(file))} complexity="0">\n<methods>\n'
    )
    for (line, function), count in sorted(file.functions.items()):
        rate = 'line-rate="1.0"' if count else 'line-rate="0.0"'
        out.write(
            f'<method name={_attribute(function)} signature="()" {rate} branch-rate="1.0" '
            f'complexity="0"><lines><line number="{line}" hits="{known.get(line, count)}"/>'
            "</lines></method>\n"
        )
    out.write("</methods>\n<lines>\n")
    out.writelines(_lines(file))
    out.write("</lines>\n</class>\n")


def _lines(file: FileCoverage) -> Iterator[str]:
    branches: dict[int, list[int]] = {}
    for (line, _name), counts in sorted(file.branches.items()):
        branches[line] = branches.get(line, []) + counts
    for number, hits in zip(file.numbers, file.counts, strict=True):
        text = f'<line number="{number}" hits="{hits}"'
        if ways := branches.get(number):
            hit = len(ways) - ways.count(0)
            percent = f"{100 * hit // len(ways)}%"
            yield (
                f'{text} branch="true" condition-coverage="{percent} ({hit}/{len(ways)})">'
                f'<conditions><condition number="0" type="jump" coverage="{percent}"/>'
                "</conditions></line>\n"
            )
        else:
            yield f'{text} branch="false"/>\n'


def _rates(totals: Totals) -> str:
    lines = totals.lines_hit / totals.lines if totals.lines else 1.0
    branches = totals.branches_hit / totals.branches if totals.branches else 1.0
    return f'line-rate="{lines:.4f}" branch-rate="{branches:.4f}"'


def _attribute(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    """XML 1.0 has no control characters, whatever a compiler calls a function."""
    return "".join(c if c >= " " or c in "\t\n" else "\ufffd" for c in text)
