"""``pytest-hil vm start|list|console|run|put|get|stop``: machines by hand.

A machine that is started so lives until it is stopped; whoever is the same user can use it.
"""

from __future__ import annotations

import argparse
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.cli import choice
from pytest_hil.cli.started import client, record
from pytest_hil.cli.started.record import Record
from pytest_hil.cli.status import Status
from pytest_hil.config import MiB
from pytest_hil.errors import ConfigError
from pytest_hil.qemu.room import Occupant, Room

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "vm",
        help="start, list, use and stop machines by hand",
        description="Machines by hand: the same that tests get, alive until they are stopped.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_start(actions)
    listing = actions.add_parser("list", help="list them, and those of running tests")
    _add_json(listing)
    console = actions.add_parser("console", help="connect this terminal to a machine's console")
    _add_name(console)
    _add_run(actions)
    _add_copies(actions)
    stop = actions.add_parser("stop", help="end machines, and forget those that died")
    stop.add_argument("names", metavar="NAME", nargs="*")
    stop.add_argument("--all", action="store_true", help="all that were started by hand")
    _add_json(stop)
    return parser


def _add_start(actions: Subparsers) -> None:
    start = actions.add_parser(
        "start", help="start one in the background", description="Start a machine, print its name."
    )
    start.add_argument(
        "target",
        metavar="TARGET",
        nargs="?",
        default=choice.DEFAULT_TARGET,
        help=f"a [target.NAME] of boards.toml; default: {choice.DEFAULT_TARGET}",
    )
    start.add_argument("--name", default="", help="default: TARGET-1, TARGET-2, …")
    choice.add_arguments(start)
    _add_json(start)


def _add_run(actions: Subparsers) -> None:
    run = actions.add_parser(
        "run",
        help="run a command on a machine",
        usage="pytest-hil vm run [-h] [-n] [--timeout SECONDS] NAME -- COMMAND…",
        description="Run a command; its output comes as it is said, its exit code is ours. One "
        "word is a line for the shell, several are the command and its arguments. A file or "
        "pipe on stdin becomes the command's. Exit code 124: killed after --timeout; 125: it "
        "could not be run.",
    )
    run.add_argument("-n", "--no-stdin", action="store_true", help="do not read stdin")
    run.add_argument("--timeout", metavar="SECONDS", type=choice.seconds, help="default: none")
    _add_name(run)
    run.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER)


def _add_copies(actions: Subparsers) -> None:
    put = actions.add_parser("put", help="copy a file or a directory to a machine")
    _add_name(put)
    put.add_argument("local", metavar="LOCAL", type=Path)
    put.add_argument("remote", metavar="REMOTE")
    get = actions.add_parser("get", help="copy a file or a directory from a machine")
    _add_name(get)
    get.add_argument("remote", metavar="REMOTE")
    get.add_argument("local", metavar="LOCAL", type=Path)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="as `pytest-hil vm list` shows it")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {
        "start": _start,
        "list": _list,
        "console": lambda args: console(client.live(args.name)),
        "run": _run,
        "put": _copy,
        "get": _copy,
        "stop": _stop,
    }
    return actions[args.action](args)


def _start(args: argparse.Namespace) -> int:
    asked = {
        "name": args.name,
        "target": args.target,
        "overrides": choice.overrides(args),
        "settings": choice.settings(args),
    }
    with Status() as status:
        machine = client.start(asked, progress=status, say=status.say)
    if args.json:
        print(json.dumps(_facts(machine), indent=2))
        return 0
    print(machine.name)
    for protocol, here, there in machine.forwards:
        status.say(f"its port {there}/{protocol} is 127.0.0.1:{here}")
    if sys.stderr.isatty():
        status.say(f"`pytest-hil vm console {machine.name}`, `vm run`, `vm stop`")
    return 0


def _list(args: argparse.Namespace) -> int:
    ours = record.records()
    servers = {one.pid for one in ours}
    others = [one for one in Room().occupants() if one.owner not in servers]
    if args.json:
        rows = [_facts(one) for one in ours] + [_facts_of_other(one) for one in others]
        print(json.dumps(rows, indent=2))
    elif ours or others:
        header = ("name", "target", "state", "memory", "started")
        _print_table(header, [_row(one) for one in ours] + [_row_of_other(o) for o in others])
        for one in ours:
            if one.why:
                print(f"\n{one.name} died: {one.why}")
    else:
        print("no machines; `pytest-hil vm start` starts one")
    return 0


def console(machine: Record) -> int:
    """A person at a started machine's console."""
    left = client.console(machine, sys.stdin.fileno(), sys.stdout.fileno())
    if left != "console closed":
        return 0
    raise client.ended(machine)


def _run(args: argparse.Namespace) -> int:
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise ConfigError("vm run", "which command?", mend=f"vm run {args.name} -- uname -a")
    machine = client.live(args.name)
    input = None if args.no_stdin or not _is_piped(0) else sys.stdin.buffer.read()
    streams = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}

    def output(stream: str, data: bytes) -> None:
        streams[stream].write(data)
        streams[stream].flush()

    command = words[0] if len(words) == 1 else words
    return client.run(machine, command, input=input, timeout=args.timeout, output=output)


def _copy(args: argparse.Namespace) -> int:
    local = str(args.local.absolute())
    client.copy(client.live(args.name), args.action, local=local, remote=args.remote)
    return 0


def _stop(args: argparse.Namespace) -> int:
    if bool(args.names) == args.all:
        raise ConfigError("vm stop", "give names, or --all (and not both)")
    # All names first: a typo in the last must not leave half of it done.
    chosen = record.records() if args.all else [record.find(name) for name in args.names]
    for machine in chosen:
        client.stop(machine)
        if not args.json:
            print(f"stopped {machine.name}")
    if args.json:
        print(json.dumps({"stopped": [machine.name for machine in chosen]}))
    return 0


def _is_piped(fd: int) -> bool:
    """Whether somebody gives us something: a pipe or a file, neither a terminal nor /dev/null."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)


def _facts(machine: Record) -> dict[str, Any]:
    return {
        "name": machine.name,
        "kind": "vm",
        "target": machine.target,
        "state": machine.state,
        "why": machine.why,
        "console": machine.last,
        "arch": machine.arch,
        "accel": machine.accel,
        "memory": machine.memory,
        "since": machine.since,
        "server": machine.pid,
        "qemu": machine.qemu,
        "origin": machine.origin,
        "forwards": [
            {"protocol": protocol, "host": here, "guest": there}
            for protocol, here, there in machine.forwards
        ],
    }


def _facts_of_other(one: Occupant) -> dict[str, Any]:
    return {
        "name": None,
        "kind": "test run",
        "target": one.name,
        "state": "ready",
        "memory": one.memory,
        "owner": one.owner,
        "qemu": one.pid,
    }


def _row(machine: Record) -> tuple[str, ...]:
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(machine.since))
    memory = f"{machine.memory // MiB} MB" if machine.memory else "-"
    return machine.name, machine.target, machine.state, memory, since


def _row_of_other(one: Occupant) -> tuple[str, ...]:
    owner = f"of a test run (process {one.owner})"
    return "-", one.name, owner, f"{one.memory // MiB} MB", "-"


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
