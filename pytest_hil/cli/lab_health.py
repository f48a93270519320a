"""``pytest-hil lab health``: which boards are ill, since when and why, and what mends that."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.cli import choice
from pytest_hil.cli.status import Status
from pytest_hil.cli.table import print_table
from pytest_hil.config import BoardTarget
from pytest_hil.errors import ConfigError, InfrastructureError, nearest, visible
from pytest_hil.lab.health import Health
from pytest_hil.lab.health_book import HealthBook, clock, sentence

if TYPE_CHECKING:
    from pytest_hil.bench import Bench
    from pytest_hil.cli.main import Subparsers


def add_parser(actions: Subparsers) -> argparse.ArgumentParser:
    """Declare the action."""
    parser = actions.add_parser(
        "health",
        help="which boards are ill, and why",
        description="How the boards are, as the runs found them. One with several errors in a row "
        "is quarantined: no test gets it until a run has tried it again in vain or with success.",
    )
    parser.add_argument("boards", metavar="BOARD", nargs="*", help="default: all that are known")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--check",
        action="store_true",
        help="try it now: lease it, switch it off and on, boot it to its last stage",
    )
    how.add_argument("--clear", action="store_true", help="it is well: end its quarantine")
    how.add_argument(
        "--quarantine", metavar="REASON", help="take it out of use until it is cleared"
    )
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=choice.seconds,
        default=0.0,
        help="how long --check waits for a board that somebody has (default: not at all)",
    )
    parser.add_argument(
        "--boards",
        metavar="FILE",
        dest="file",
        type=Path,
        help="where --check finds how they are reached (default: boards.toml here)",
    )
    return parser


def run(directory: Path | None, args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    names: list[str] = list(dict.fromkeys(args.boards))
    changes = args.check or args.clear or args.quarantine is not None
    if changes and not names:
        raise ConfigError("lab health", "which board?", mend="name at least one BOARD")
    if args.quarantine is not None and not args.quarantine.strip():
        raise ConfigError("--quarantine", "say why: others will want to know")
    code = 0
    book = HealthBook(directory)
    if args.check:
        book, code = _check(directory, names, args)
    for name in names:
        if args.clear:
            book.clear(name)
        elif args.quarantine is not None:
            book.quarantine(name, args.quarantine)
    _show(book.look(names or None), args)
    return code


def _check(
    directory: Path | None, names: Sequence[str], args: argparse.Namespace
) -> tuple[HealthBook, int]:
    from pytest_hil.bench import Bench, Settings

    settings = Settings(
        root=Path.cwd(),
        boards=args.file,
        lab=directory,
        board_wait=args.wait,
        purpose="pytest-hil lab health --check",
    )
    code = 0
    with Status() as status, Bench(settings, progress=status, say=status.say) as bench:
        boards = [_board(bench, name) for name in names]
        for board in boards:
            try:
                bench.stations.check(board, lambda line: print(line, file=sys.stderr, flush=True))
            except InfrastructureError as error:
                code = 1
                status.end()
                print(f"pytest-hil: {error}", file=sys.stderr)
        return bench.health, code


def _board(bench: Bench, name: str) -> BoardTarget:
    """Raises ConfigError."""
    found = bench.config.targets.get(name)
    if isinstance(found, BoardTarget):
        return found
    boards = [key for key, one in bench.config.targets.items() if isinstance(one, BoardTarget)]
    raise ConfigError(
        bench.config.source, f"there is no board {name!r}", mend=nearest(name, boards)
    )


def _show(known: Mapping[str, Health], args: argparse.Namespace) -> None:
    if args.json:
        print(json.dumps([_facts(name, one) for name, one in known.items()], indent=2))
    elif not known:
        print("nothing is known of any board yet")
    elif len(known) == 1 and args.boards:
        ((name, one),) = known.items()
        print(sentence(name, one))
        print(f"  errors in a row: {one.errors}; last: {clock(one.last_error)}")
        print(f"  last good: {clock(one.last_good)}")
        if one.state == "quarantined":
            print(f"  pytest-hil lab health {name} --check tries it, --clear lifts it")
    else:
        header = ("board", "state", "errors", "since", "last good", "next try", "reason")
        print_table(header, [_row(name, one) for name, one in known.items()])


def _facts(name: str, one: Health) -> dict[str, Any]:
    return {"board": name, **asdict(one)}


def _row(name: str, one: Health) -> tuple[str, ...]:
    retry = "when cleared" if one.by else clock(one.retry_at)
    return (
        name,
        one.state,
        str(one.errors),
        clock(one.since),
        clock(one.last_good),
        retry,
        visible(one.reason) or "-",
    )
