"""Pages that need nothing but a browser: an index, and a page for each source file.

A click on a line's count says which tests reach it. Test sets are written once: most lines of a
file are reached by the same few.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import IO

from pytest_hil.coverage.model import FileCoverage, Totals, totals_of
from pytest_hil.coverage.report.names import short
from pytest_hil.coverage.report.page import SCRIPT, STYLE
from pytest_hil.coverage.shard import Shard
from pytest_hil.errors import visible


def write(shard: Shard, directory: Path, *, base: Path) -> Path:
    """Write the pages; returns the index. What is there of an earlier report is overwritten."""
    pages = directory / "files"
    pages.mkdir(parents=True, exist_ok=True)
    totals = Totals()
    rows = []
    for number, file in enumerate(shard):
        own = totals_of(file)
        totals.add(file)
        name = short(file.path, base)
        link = f"files/{number}.html"
        rows.append(_row(name, link, own, len(file.tests)))
        with (directory / link).open("w", encoding="utf-8", errors="replace") as out:
            _write_page(out, file, name, shard.contexts, own)
    index = directory / "index.html"
    with index.open("w", encoding="utf-8", errors="replace") as out:
        out.write(_head("Coverage", "Coverage"))
        out.write(_summary(totals, f"{len(shard.contexts)} tests"))
        out.write(
            '<input id=filter type=search placeholder="filter files" aria-label="filter files">'
            "<table class=files><thead><tr><th>file<th>lines<th>reached<th>%<th><th>branches"
            "<th>functions<th>tests</tr></thead><tbody>\n"
        )
        out.writelines(rows)
        out.write(f"</tbody></table><script>{SCRIPT}</script>\n")
    return index


def _row(name: str, link: str, totals: Totals, tests: int) -> str:
    percent = totals.percent
    return (
        f'<tr><td><a href="{link}">{escape(visible(name))}</a><td>{totals.lines}'
        f"<td>{totals.lines_hit}<td>{percent:.1f}"
        f'<td><meter max=100 value={percent:.1f} aria-label="{percent:.1f} %"></meter>'
        f"<td>{totals.branches_hit}/{totals.branches}"
        f"<td>{totals.functions_hit}/{totals.functions}<td>{tests}</tr>\n"
    )


def _head(title: str, heading: str) -> str:
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style><h1>{heading}</h1>\n"
    )


def _summary(totals: Totals, more: str) -> str:
    return (
        f"<p class=summary><b>{totals.percent:.1f} %</b> of lines "
        f"({totals.lines_hit} of {totals.lines}) · branches "
        f"{totals.branches_hit} of {totals.branches} · functions "
        f"{totals.functions_hit} of {totals.functions} · {more}</p>\n"
    )


def _write_page(
    out: IO[str], file: FileCoverage, name: str, contexts: list[str], totals: Totals
) -> None:
    heading = f'<a href="../index.html">Coverage</a> / {escape(visible(name))}'
    out.write(_head(visible(name), heading))
    out.write(_summary(totals, f"{len(file.tests)} tests reach it"))
    by_line, sets = _sets(file)
    try:
        text = Path(file.path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        text = []
        out.write("<p>Its source is not on this host: only the lines that have code are shown.</p>")
    out.write("<div class=page><table class=source><tbody>\n")
    out.writelines(_lines(file, text, by_line))
    out.write("</tbody></table><aside id=tests hidden></aside></div>\n")
    data = {"tests": {test: contexts[test] for test, _ in file.tests}, "sets": sets}
    # "</script>" in a test's name must not end the script.
    text_of = json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
    out.write(f"<script id=data type=application/json>{text_of}</script>")
    out.write(f"<script>{SCRIPT}</script>\n")


def _sets(file: FileCoverage) -> tuple[list[int], list[list[int]]]:
    """For each line with code, the number of its set of tests; and the sets."""
    known: dict[tuple[int, ...], int] = {(): 0}
    by_line = []
    columns: Iterator[tuple[int, ...]] = zip(*(counts for _, counts in file.tests), strict=True)
    tests = [test for test, _ in file.tests]
    for column in columns if tests else ((),) * len(file.numbers):
        reached = tuple(test for test, count in zip(tests, column, strict=False) if count)
        by_line.append(known.setdefault(reached, len(known)))
    return by_line, [list(each) for each in known]


def _lines(file: FileCoverage, text: list[str], by_line: list[int]) -> Iterator[str]:
    counted = {
        number: (count, which)
        for number, count, which in zip(file.numbers, file.counts, by_line, strict=True)
    }
    branches: dict[int, list[int]] = {}
    for (line, _name), counts in file.branches.items():
        branches[line] = branches.get(line, []) + counts
    for number in range(1, len(text) + 1) if text else file.numbers:
        source = escape(visible(text[number - 1])) if text else ""
        if number not in counted:
            yield f"<tr id=L{number}><th>{number}<td><td><td><code>{source}</code></tr>\n"
            continue
        count, which = counted[number]
        kind = "hit" if count else "miss"
        ways = branches.get(number, [])
        if count and 0 in ways:
            kind = "part"
        taken = f"{len(ways) - ways.count(0)}/{len(ways)}" if ways else ""
        shown = f"<button data-set={which}>{count}</button>" if count else "0"
        yield (
            f"<tr id=L{number} class={kind}><th>{number}<td>{shown}<td>{taken}"
            f"<td><code>{source}</code></tr>\n"
        )
