"""``pytest-hil watch [RUN]``: follow a run from another terminal."""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.artifacts import index
from pytest_hil.artifacts.follow import Follower
from pytest_hil.cli.artifacts import artifacts_root
from pytest_hil.errors import visible

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pytest_hil.cli.main import Subparsers

# Seconds from one picture to the next.
_INTERVAL = 0.5

_BAD = frozenset({"failed", "error"})


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "watch",
        help="follow a run from another terminal",
        description="What a run is doing: its workers, their targets and tests, and what their "
        "consoles say last. Where there is no terminal: a line for each test that ends. The exit "
        "code is 1 if a test has failed, or the run was killed.",
    )
    parser.add_argument(
        "run_id",
        metavar="RUN",
        nargs="?",
        default=index.LATEST,
        help="an id, or the beginning of one (default: latest)",
    )
    parser.add_argument(
        "--artifacts",
        metavar="DIR",
        type=Path,
        help="the artifacts' directory (default: .hil here, or in the nearest directory above)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    found = index.find_run(artifacts_root(args.artifacts), args.run_id)
    follower = Follower(found)
    with contextlib.suppress(KeyboardInterrupt):
        _follow_live(follower) if sys.stdout.isatty() else _follow_plain(follower)
    bad = any(follower.counts[outcome] for outcome in _BAD)
    return 1 if bad or follower.run.status == "interrupted" else 0


def _follow_plain(follower: Follower) -> None:
    while True:
        for result in follower.look():
            print(_line(result), flush=True)
        if follower.run.status != "running":
            break
        time.sleep(_INTERVAL)
    print(_summary(follower), flush=True)


def _follow_live(follower: Follower) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            for result in follower.look():
                if result.get("outcome") in _BAD:
                    live.console.print(_line(result), style="red", markup=False)
            live.update(_picture(follower), refresh=True)
            if follower.run.status != "running":
                break
            time.sleep(_INTERVAL)


def _picture(follower: Follower) -> RenderableType:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    table.add_column("worker", no_wrap=True)
    table.add_column("target", no_wrap=True)
    table.add_column("test", no_wrap=True, ratio=1)
    table.add_column("for", justify="right", no_wrap=True)
    table.add_column("its console", no_wrap=True, ratio=1, style="dim")
    for one in follower.running():
        cells = (one.worker or "-", one.target, one.nodeid, f"{one.seconds:.0f} s", one.said)
        table.add_row(*(Text(visible(cell)) for cell in cells))
    parts: list[RenderableType] = [Text(_summary(follower))]
    if table.row_count:
        parts.append(table)
    return Group(*parts)


def _line(result: dict[str, Any]) -> str:
    worker, target = str(result.get("worker") or "-"), str(result.get("target") or "-")
    reason = str(result.get("reason") or "").partition("\n")[0]
    words = [str(result.get("outcome")), worker, target, str(result.get("nodeid"))]
    return visible(" ".join(words) + (f": {reason}" if reason else ""))


def _summary(follower: Follower) -> str:
    run = follower.run
    done = sum(follower.counts.values())
    many = f"{done} of {follower.total}" if follower.total else str(done)
    each = ", ".join(f"{count} {outcome}" for outcome, count in sorted(follower.counts.items()))
    how = {"running": "", "finished": ", ended", "interrupted": ", killed"}[run.status]
    return f"{run.id}: {many} tests{how}" + (f": {each}" if each else "")
