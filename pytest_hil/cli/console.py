"""``pytest-hil console NAME|TARGET``: a person at a machine's console."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from pytest_hil.cli import choice, vm
from pytest_hil.cli.started import client, record
from pytest_hil.cli.status import Status
from pytest_hil.errors import ConfigError, nearest

if TYPE_CHECKING:
    from pytest_hil.bench import Bench
    from pytest_hil.cli.main import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "console",
        help="connect this terminal to a machine's console",
        description="Connect this terminal to the console of a machine that was started with "
        "`pytest-hil vm start`, or to that of a fresh one, which ends with it. Ctrl-] leaves.",
    )
    parser.add_argument(
        "name",
        metavar="NAME|TARGET",
        nargs="?",
        default=choice.DEFAULT_TARGET,
        help=f"a machine (`pytest-hil vm list`) or a target; default: {choice.DEFAULT_TARGET}",
    )
    choice.add_arguments(parser)
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    started = {one.name for one in record.records()}
    if args.name in started:
        return vm.console(client.live(args.name))
    from pytest_hil.bench import Bench

    with Status() as status:
        bench = Bench(choice.made(choice.settings(args)), progress=status, say=status.say)
        with bench:
            _check(args.name, bench, started)
            return _fresh(bench, args, status)


def _check(name: str, bench: Bench, started: set[str]) -> None:
    """The error names machines and targets alike."""
    targets = bench.config.targets
    if name not in targets:
        raise ConfigError(
            "console",
            f"there is no machine and no target {name!r}",
            mend=nearest(name, [*started, *targets]),
        )


def _fresh(bench: Bench, args: argparse.Namespace, status: Status) -> int:
    from pytest_hil.console.interact import interact

    guest = bench.open(choice.target_of(bench, args.name, choice.overrides(args)))
    status.end()
    left = interact(guest.console, sys.stdin.fileno(), sys.stdout.fileno())
    if left == "console closed" and (died := guest.died()) is not None:
        raise died
    return 0
