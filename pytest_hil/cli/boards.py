"""``pytest-hil boards check|list|show|drivers|schema``: what boards.toml says of boards."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.board import drivers
from pytest_hil.board.check import check
from pytest_hil.board.schema import SHARED, boards_schema
from pytest_hil.config import BoardTarget, Config, load
from pytest_hil.config.driver import Section, keys
from pytest_hil.config.usb import BoardUsb
from pytest_hil.errors import ConfigError, HilError, nearest

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "boards",
        help="check and show what boards.toml says of boards",
        description="Boards, as boards.toml describes them. Nothing is switched or opened.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    checked = actions.add_parser("check", help="say all that is wrong with boards.toml")
    listed = actions.add_parser("list", help="list the boards")
    shown = actions.add_parser("show", help="show one board, all its defaults filled in")
    shown.add_argument("name", metavar="NAME")
    named = actions.add_parser("drivers", help="list the drivers and their keys")
    named.add_argument("kind", choices=sorted(SHARED), nargs="?", help="default: all kinds")
    actions.add_parser(
        "schema", help="print boards.toml's JSON schema, for editors: all drivers, and their keys"
    )
    for action in (checked, listed, shown):
        action.add_argument("--boards", metavar="FILE", type=Path, help="default: boards.toml here")
    for action in (listed, shown, named):
        action.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if args.action == "drivers":
        return _drivers(args)
    if args.action == "schema":
        print(json.dumps(boards_schema(), indent=2, ensure_ascii=False))
        return 0
    if args.action == "check":
        return _check(args.boards)
    config = load(args.boards, root=Path.cwd())
    boards = _boards(config)
    if args.action == "show":
        return _show(config, boards, args)
    return _list(config, boards, args)


def _boards(config: Config) -> dict[str, BoardTarget]:
    return {name: one for name, one in config.targets.items() if isinstance(one, BoardTarget)}


def _check(path: Path | None) -> int:
    """What is wrong is what was asked for: it is no error of this command."""
    try:
        config = load(path, root=Path.cwd())
    except ConfigError as error:
        print(error)
        return 1
    boards = _boards(config)
    wrong: dict[str, None] = {}
    for one in boards.values():
        try:
            check(one)
        except HilError as error:
            wrong[str(error)] = None  # what several have from a group, once
    for message in wrong:
        print(message)
    if not wrong:
        print(f"{config.source}: {len(boards)} boards, nothing wrong")
    return 1 if wrong else 0


def _list(config: Config, boards: Mapping[str, BoardTarget], args: argparse.Namespace) -> int:
    if args.json:
        print(json.dumps([_facts(one) for one in boards.values()], indent=2))
        return 0
    for name, one in boards.items():
        tags = f"  [{', '.join(sorted(one.tags))}]" if one.tags else ""
        print(f"{name}  {one.arch}  {', '.join(sorted(one.all_features))}{tags}")
    if not boards:
        print(f"no boards in {config.source}")
    return 0


def _show(config: Config, boards: Mapping[str, BoardTarget], args: argparse.Namespace) -> int:
    if args.name not in boards:
        raise ConfigError(
            config.source, f"there is no board {args.name!r}", mend=nearest(args.name, boards)
        )
    board = boards[args.name]
    facts = _facts(board)
    if args.json:
        print(json.dumps(facts, indent=2))
        return 0
    for key, value in facts.items():
        if isinstance(value, dict):
            print(f"{key}:")
            for name, item in value.items():
                print(f"  {name} = {item}")
        else:
            print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")
    return 0


def _facts(board: BoardTarget) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": board.name,
        "arch": board.arch,
        "features": sorted(board.all_features),
        "tags": sorted(board.tags),
        "between": board.between,
    }
    parts = {"console": board.console, "power": board.power, "reset": board.reset}
    for name, section in parts.items():
        if section is not None:
            found[name] = _options("power" if name == "reset" else name, section)
    for number, section in enumerate(board.boot, 1):
        found[f"boot {number}"] = _options("boot", section)
    if board.shell is not None:
        found["shell"] = _options("shell", board.shell)
    if board.usb is not None:
        values = {one.name: getattr(board.usb, one.name) for one in keys(BoardUsb)}
        found["usb"] = values | {"allow": ", ".join(board.usb.allow)}
    return found


def _options(kind: str, section: Section) -> dict[str, str]:
    """A table's values with its driver's defaults. Raises ConfigError."""
    its_own, common = drivers.options(kind, section), SHARED[kind]
    shared, own = section.both(common, its_own)
    names = [
        *((one.name, getattr(own, one.name)) for one in keys(its_own)),
        *((one.name, getattr(shared, one.name)) for one in keys(common)),
    ]
    return {"driver": section.driver, **{name: str(value) for name, value in names}}


def _drivers(args: argparse.Namespace) -> int:
    kinds = [args.kind] if args.kind else sorted(SHARED)
    found = {kind: {name: _keys(kind, name) for name in drivers.names(kind)} for kind in kinds}
    if args.json:
        print(json.dumps(found, indent=2))
        return 0
    for kind, names in found.items():
        print(f"{kind}:")
        for name, every in names.items():
            print(f"  {name}")
            for key in every:
                default = "required" if key["required"] else f"default: {key['default']}"
                print(f"    {key['name']:12} {key['help']} ({default})")
        if shared := ", ".join(one.name for one in keys(SHARED[kind])):
            print(f"  all of them: {shared}")
    return 0


def _keys(kind: str, name: str) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "help": one.help,
            "required": one.required,
            "default": None if one.default is None else str(one.default),
        }
        for one in keys(drivers.options(kind, Section("", "", name)))
    ]
