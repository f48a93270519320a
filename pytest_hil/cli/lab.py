"""``pytest-hil lab status|health|reserve|release|queue|history``: the boards that runs share."""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.cli import lab_health
from pytest_hil.cli.table import print_table
from pytest_hil.lab.lease import BoardState, Event, Holder, Lab, Waiting
from pytest_hil.lab.registry import duration

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "lab",
        help="show, check and reserve the boards that runs share",
        description="The boards that the runs of this host share: who has them, who waits.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    status = actions.add_parser("status", help="who has which board, and for what")
    status.add_argument("boards", metavar="BOARD", nargs="*", help="default: all that are known")
    _add_reserve(actions)
    release = actions.add_parser(
        "release",
        help="end a reservation",
        description="End a reservation. A board that a run has is given back by that run alone, "
        "or by its end.",
    )
    release.add_argument("board", metavar="BOARD")
    release.add_argument("--force", action="store_true", help="though it is another user's")
    queue = actions.add_parser("queue", help="who waits, the next one first")
    history = actions.add_parser("history", help="what happened, the last at the end")
    history.add_argument(
        "-n", "--limit", metavar="N", type=_count, default=50, help="so many (default: 50)"
    )
    health = lab_health.add_parser(actions)
    for action in (status, release, queue, history, health):
        _add_shared(action)
    return parser


def _add_reserve(actions: Subparsers) -> None:
    reserve = actions.add_parser(
        "reserve",
        help="let only one user have a board for a while",
        description="Let only one user have a board for a while. A run that has it keeps it.",
    )
    reserve.add_argument("board", metavar="BOARD")
    end = reserve.add_mutually_exclusive_group(required=True)
    end.add_argument(
        "--for", metavar="TIME", dest="seconds", type=_seconds, help="such as 45m, 2h or 1d"
    )
    end.add_argument(
        "--until", metavar="WHEN", type=_when, help="such as 18:00 or 2030-01-31T18:00"
    )
    reserve.add_argument("--user", metavar="NAME", default="", help="default: you")
    reserve.add_argument("--reason", metavar="TEXT", default="", help="what others are told")
    _add_shared(reserve)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory",
        metavar="DIR",
        type=Path,
        help="the lab's directory (default: $PYTEST_HIL_LAB, or your own)",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if args.action == "health":
        return lab_health.run(args.directory, args)
    actions: Mapping[str, Callable[[Lab, argparse.Namespace], None]] = {
        "status": _status,
        "reserve": _reserve,
        "release": _release,
        "queue": _queue,
        "history": _history,
    }
    actions[args.action](Lab(args.directory), args)
    return 0


def _status(lab: Lab, args: argparse.Namespace) -> None:
    boards = lab.status(args.boards)
    if args.json:
        print(json.dumps([_facts(one) for one in boards], indent=2))
    elif boards:
        print_table(("board", "state", "since", "who", "run", "for", "waiting"), map(_row, boards))
        for one in boards:
            if one.reservation is not None:
                print(f"\n{one.board} is {one.reservation}")
    else:
        print("no board was leased or reserved yet")


def _reserve(lab: Lab, args: argparse.Namespace) -> None:
    one = lab.reserve(
        args.board, args.user, until=args.until, seconds=args.seconds, reason=args.reason
    )
    holder = lab.status([args.board])[0].holder
    if args.json:
        print(json.dumps({**asdict(one), "holder": _holder_facts(holder)}, indent=2))
        return
    print(f"{one.board} is {one}")
    if holder is not None:
        print(f"until they give it back {holder} has it")


def _release(lab: Lab, args: argparse.Namespace) -> None:
    one = lab.release(args.board, force=args.force)
    if args.json:
        print(json.dumps({"board": args.board, "ended": None if one is None else asdict(one)}))
    elif one is None:
        print(f"{args.board} was not reserved, and is free")
    else:
        print(f"{args.board} was {one}; it is not any more")


def _queue(lab: Lab, args: argparse.Namespace) -> None:
    waiting = lab.queue()
    if args.json:
        print(json.dumps([_waiting_facts(one) for one in waiting], indent=2))
    elif waiting:
        header = ("next", "wants one of", "priority", "since", "who", "run", "for")
        rows = [_waiting_row(place, one) for place, one in enumerate(waiting, 1)]
        print_table(header, rows)
    else:
        print("nobody waits")


def _history(lab: Lab, args: argparse.Namespace) -> None:
    events = lab.history(args.limit)
    if args.json:
        print(json.dumps([asdict(one) for one in events], indent=2))
    elif events:
        print_table(("at", "board", "what", "held", "user", "run", "for"), map(_event_row, events))
    else:
        print("nothing happened yet")


def _facts(one: BoardState) -> dict[str, Any]:
    return {
        "board": one.board,
        "state": _state(one),
        "holder": _holder_facts(one.holder),
        "reservation": None if one.reservation is None else asdict(one.reservation),
        "queue": [_waiting_facts(waiting) for waiting in one.queue],
    }


def _waiting_facts(one: Waiting) -> dict[str, Any]:
    return {
        "wants": list(one.wants),
        "priority": one.priority,
        **(_holder_facts(one.who) or {}),
    }


def _holder_facts(holder: Holder | None) -> dict[str, Any] | None:
    if holder is None:
        return None
    # Where its pid is meant, and when it began, is for us alone.
    hidden = ("space", "started", "keeps")
    return {name: value for name, value in asdict(holder).items() if name not in hidden}


def _state(one: BoardState) -> str:
    if one.holder is not None:
        return "leased"
    return "free" if one.reservation is None else "reserved"


def _row(one: BoardState) -> tuple[str, ...]:
    waiting = str(len(one.queue)) if one.queue else "-"
    if one.holder is not None:
        whose = _who(one.holder)
    elif one.reservation is not None:
        whose = (
            _clock(one.reservation.since),
            one.reservation.user,
            "-",
            one.reservation.reason or "-",
        )
    else:
        whose = ("-",) * 4
    return one.board, _state(one), *whose, waiting


def _waiting_row(place: int, one: Waiting) -> tuple[str, ...]:
    return str(place), " ".join(one.wants), str(one.priority), *_who(one.who)


def _who(holder: Holder) -> tuple[str, str, str, str]:
    who = f"{holder.user}@{holder.host} ({holder.pid})"
    return _clock(holder.since), who, holder.run or "-", holder.purpose or "-"


def _event_row(one: Event) -> tuple[str, ...]:
    held = "-" if one.seconds is None else duration(one.seconds)
    return _clock(one.at), one.board, one.what, held, one.user, one.run or "-", one.purpose or "-"


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "-"


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None or not 0 < (seconds := float(match[1]) * _UNITS[match[2]]) < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90, 45m, 2h or 1d")
    return seconds


def _when(text: str) -> float:
    """A time of the wall clock, in seconds; without a date, the next time that it is so late."""
    now = datetime.now()
    try:
        if re.fullmatch(r"\d\d:\d\d", text):
            found = datetime.fromisoformat(f"{now.date()}T{text}")
            return (found if found > now else found + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: write 18:00 or 2030-01-31T18:00"
        ) from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 10**9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number above 0")
    return int(text)
