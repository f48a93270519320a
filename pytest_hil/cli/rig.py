"""``pytest-hil rig up``: emulated boards that stand in for physical ones."""

from __future__ import annotations

import argparse
import shlex
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.cli.status import Status
from pytest_hil.errors import ConfigError

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers
    from pytest_hil.rig.rig import Rig

_SERIALS = ("tcp", "pty", "unix", "rfc2217")
_POWERS = ("tasmota", "snmp", "hub")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "rig",
        help="run emulated boards that stand in for physical ones",
        description="Boards without hardware: a serial line each, and a power switch. "
        "What pytest-hil does with them it does as with real ones.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    up = actions.add_parser(
        "up",
        help="run some until Ctrl-C",
        description="Run boards until Ctrl-C. Light ones are a login and a shell of this host, "
        "which start in no time; arm64 ones are emulated, with U-Boot, Linux and SSH.",
    )
    up.add_argument("--boards", metavar="N", type=int, default=2, help="how many (default: 2)")
    up.add_argument(
        "--arm64",
        metavar="N",
        type=int,
        default=0,
        help="so many of them are emulated arm64 boards (default: 0)",
    )
    up.add_argument(
        "--serial", choices=_SERIALS, default="tcp", help="their serial lines (default: tcp)"
    )
    up.add_argument(
        "--power",
        choices=_POWERS,
        default="tasmota",
        help="their power switches: a network switch with Tasmota's protocol, a PDU that speaks "
        "SNMP (package pysnmp), or USB hubs over USB/IP (package pyusb) (default: tasmota)",
    )
    up.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        help="where boards.toml and the boards' records go (default: a temporary one)",
    )
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    actions: Mapping[str, Callable[[argparse.Namespace], int]] = {"up": _up}
    return actions[args.action](args)


def _up(args: argparse.Namespace) -> int:
    from pytest_hil.rig.rig import Rig

    if not 0 <= args.arm64 <= args.boards:
        raise ConfigError(
            "rig up", f"--arm64 {args.arm64} of --boards {args.boards}", mend="not more than all"
        )
    kinds = ["arm64"] * args.arm64 + ["light"] * (args.boards - args.arm64)
    with Status() as status:
        rig = Rig(
            args.boards,
            kinds,
            serial=args.serial,
            power=args.power,
            directory=args.directory,
            progress=status,
        )
    with rig:
        _say(rig)
        _wait()
    return 0


def _say(rig: Rig) -> None:
    for board in rig.boards:
        console = " ".join(board.outside.console.values())
        print(f"{board.name}  {board.kind:<5}  {console}")
    settings = " ".join(f"{name}={value}" for name, value in rig.environment.items())
    boards = shlex.quote(str(rig.boards_toml))
    print(f"power and faults: {rig.switchboard.url}")
    print(f"boards: {rig.boards_toml}")
    print("in another terminal:")
    print(f"  {settings} pytest --hil-boards={boards} --hil-target={rig.boards[0].name}")
    print("Ctrl-C ends it", flush=True)


def _wait() -> None:
    """Until one of the signals comes. They are not blocked: the boards would inherit that."""
    told = threading.Event()
    before = {number: signal.signal(number, lambda *_args: told.set()) for number in _SIGNALS}
    try:
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
