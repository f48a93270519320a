"""All that is known, for scripts: docs/howto/coverage.md has its keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pytest_hil.coverage.model import FileCoverage, Totals, totals_of
from pytest_hil.coverage.report.names import short
from pytest_hil.coverage.shard import Shard


def write(shard: Shard, path: Path, *, base: Path) -> None:
    encode = json.JSONEncoder(separators=(",", ":")).encode
    totals = Totals()
    with path.open("w", encoding="ascii") as out:
        out.write(
            f'{{"format":"pytest-hil coverage report","version":1,"root":{encode(str(base))},\n'
            f'"tests":{encode(shard.contexts)},\n"files":['
        )
        for number, file in enumerate(shard):
            totals.add(file)
            out.write("\n" if number == 0 else ",\n")
            out.write(encode(_file(file, base)))
        out.write(f'\n],\n"totals":{encode(_totals(totals))}}}\n')


def _file(file: FileCoverage, base: Path) -> dict[str, Any]:
    return {
        "path": short(file.path, base),
        "totals": _totals(totals_of(file)),
        "lines": {str(n): c for n, c in zip(file.numbers, file.counts, strict=True)},
        "functions": [
            {"line": line, "name": name, "count": count}
            for (line, name), count in sorted(file.functions.items())
        ],
        "branches": [
            {"line": line, "function": name, "counts": counts}
            for (line, name), counts in sorted(file.branches.items())
        ],
        "reached_by": {
            str(test): [n for n, c in zip(file.numbers, counts, strict=True) if c]
            for test, counts in file.tests
        },
    }


def _totals(totals: Totals) -> dict[str, float | int]:
    return {
        "lines": totals.lines,
        "lines_hit": totals.lines_hit,
        "branches": totals.branches,
        "branches_hit": totals.branches_hit,
        "functions": totals.functions,
        "functions_hit": totals.functions_hit,
        "percent": round(totals.percent, 2),
    }
