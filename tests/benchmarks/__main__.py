"""scripts/benchmark: measures, shows a table, writes JSON."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from pytest_hil.errors import HilError, nearest
from tests.benchmarks import catalogue, report
from tests.benchmarks.catalogue import Benchmark
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line


def main(argv: Sequence[str]) -> int:
    """0: all was measured. 1: something could not be, or, with --check, a bound was missed."""
    chosen = _arguments().parse_args(argv)
    if chosen.list:
        for each in catalogue.ALL:
            sys.stdout.write(f"{each.name:10} {each.what}\n")
        return 0
    # The figures may go to standard output; everything for people then does not.
    console = Console(stderr=chosen.json == "-")
    console.print(report.host(), highlight=False)
    lines, whole = _measure(chosen.names or list(catalogue.ALL), console, quick=chosen.quick)
    report.show(lines, console)
    text = json.dumps([each.as_json() for each in lines], indent=1) + "\n"
    if chosen.json == "-":
        sys.stdout.write(text)
    elif chosen.json:
        Path(chosen.json).write_text(text)
    missed = chosen.check and not all(each.holds for each in lines)
    return 0 if whole and not missed else 1


def _measure(
    benchmarks: list[Benchmark], console: Console, *, quick: bool
) -> tuple[list[Line], bool]:
    """All lines, and whether none is left out. What cannot be measured stops nothing else."""
    lines: list[Line] = []
    whole = True
    with (
        tempfile.TemporaryDirectory(prefix="hil-benchmark-") as scratch,
        console.status("") as status,
        Context(Path(scratch), quick=quick, tell=lambda text: status.update(text)) as context,
    ):
        for each in benchmarks:
            try:
                lines += each.measure(context)
            except HilError as error:
                whole = False
                console.print(f"{each.name}: not measured: {error}", markup=False, style="red")
    return lines, whole


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/benchmark",
        description="Measures pytest-hil, and labgrid beside it: docs/reference/benchmarks.md.",
    )
    parser.add_argument(
        "names", nargs="*", type=_benchmark, metavar="NAME", help="which of them (default: all)"
    )
    parser.add_argument("--json", metavar="FILE", help="write the figures there (- : print them)")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--quick", action="store_true", help="measure less often")
    parser.add_argument("--check", action="store_true", help="a missed bound is a failure")
    return parser


def _benchmark(name: str) -> Benchmark:
    known = {each.name: each for each in catalogue.ALL}
    if name not in known:
        raise argparse.ArgumentTypeError(f"no benchmark {name!r}: {nearest(name, known)}")
    return known[name]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
