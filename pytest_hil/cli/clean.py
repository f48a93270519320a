"""``pytest-hil clean``: what killed runs left, and what the cache holds for nobody."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.artifacts import index, retention
from pytest_hil.cache import Cache, Entry
from pytest_hil.cli import leftovers
from pytest_hil.cli.artifacts import artifacts_root, say_stuck
from pytest_hil.cli.started import record
from pytest_hil.errors import ConfigError
from pytest_hil.qemu import runtime, template
from pytest_hil.qemu.image import download, manifest
from pytest_hil.qemu.room import Room

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

_UNUSED_DAYS = 7.0
_DAY = 86400.0


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to remove, or to keep because it is ``in_use`` (by whom). ``size`` in bytes."""

    kind: str
    name: str
    size: int
    in_use: str = ""


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "clean",
        help="remove what dead runs left, and old templates",
        description="Remove what killed runs left (machines, directories) and the templates that "
        "were not used for a week; with options, more. Runs that still go on are left alone.",
    )
    parser.add_argument("--templates", action="store_true", help="all templates")
    parser.add_argument("--images", action="store_true", help="all images, and fetched files")
    parser.add_argument("--runs", action="store_true", help="what runs have kept (.hil)")
    parser.add_argument("--all", action="store_true", help="all of these")
    parser.add_argument(
        "--older-than",
        metavar="DAYS",
        type=_days,
        help=f"only what was not used for so long (default: {_UNUSED_DAYS:g} for templates "
        "that are not asked for, 0 for what is)",
    )
    parser.add_argument(
        "--artifacts", metavar="DIR", type=Path, help="for --runs: default: .hil here, or above"
    )
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    stuck: list[OSError] = []
    items = list(_items(args, stuck))
    removed = [item for item in items if not item.in_use]
    if args.json:
        print(json.dumps([_facts(item, args.dry_run) for item in items], indent=2))
        return say_stuck(stuck)
    verb = "would remove" if args.dry_run else "removed"
    for item in items:
        if item.in_use:
            print(f"kept the {item.kind} {item.name}: {item.in_use}")
        else:
            print(f"{verb} the {item.kind} {item.name}{_size(item.size)}")
    if removed:
        total = sum(item.size for item in removed)
        print(f"{verb} {len(removed)}, {total / 1e6:.0f} MB in all")
    elif not stuck:
        print("nothing to remove")
    return say_stuck(stuck)


def _items(args: argparse.Namespace, stuck: list[OSError]) -> Iterator[Item]:
    """Remove (unless it is a dry run) and say what it was, one after the other."""
    cache = Cache.default()
    yield from _dead(dry=args.dry_run)
    templates, images, runs = (args.all or x for x in (args.templates, args.images, args.runs))
    asked = 0.0 if args.older_than is None else args.older_than
    unasked = _UNUSED_DAYS if args.older_than is None else args.older_than
    yield from _templates(cache, asked if templates else unasked, dry=args.dry_run)
    if images:
        yield from _images(cache, asked, dry=args.dry_run)
    if runs:
        yield from _runs(args, asked, stuck)


def _dead(*, dry: bool) -> Iterator[Item]:
    found = leftovers.find()
    if not dry:
        Room().reap()
        runtime.reap()
        for machine in found.died:
            record.forget(machine)
    for one in found.machines:
        yield Item("machine", f"{one.name} (QEMU {one.pid}), whose run was killed", 0)
    for path, size in found.directories:
        yield Item("directory", f"{path}, whose run was killed", size)
    for machine in found.died:
        yield Item("record", f"of the machine {machine.name}, which died: {machine.why}", 0)


def _templates(cache: Cache, days: float, *, dry: bool) -> Iterator[Item]:
    """Clones live on without their template's name: it can go at any time."""
    for entry in _unused(cache, template.KIND, days):
        if dry or cache.remove(entry.kind, entry.key):
            yield Item("template", entry.key, entry.size)


def _images(cache: Cache, days: float, *, dry: bool) -> Iterator[Item]:
    users = list(_command_lines())
    for kind in (manifest.KIND, download.KIND):
        for entry in _unused(cache, kind, days):
            user = next((name for name, argv in users if str(entry.path) in argv), "")
            if user:
                yield Item("image", entry.key, entry.size, f"the machine {user} runs from it")
            elif dry or cache.remove(entry.kind, entry.key):
                yield Item("image", entry.key, entry.size)


def _unused(cache: Cache, kind: str, days: float) -> list[Entry]:
    before = time.time() - days * _DAY
    return [entry for entry in cache.entries(kind) if entry.used <= before]


def _command_lines() -> Iterator[tuple[str, str]]:
    """Of the machines that live: name and command line."""
    for one in Room().occupants():
        try:
            argv = Path(f"/proc/{one.pid}/cmdline").read_bytes()
        except OSError:
            continue
        yield one.name, argv.replace(b"\0", b" ").decode(errors="replace")


def _runs(args: argparse.Namespace, days: float, stuck: list[OSError]) -> Iterator[Item]:
    try:
        root = artifacts_root(args.artifacts)
    except ConfigError:
        if args.artifacts is not None or args.runs:
            raise
        return  # --all, where there are none
    before = time.time() - days * _DAY
    for run in index.runs(root):
        if run.path.stat().st_mtime > before:
            continue
        size = leftovers.disk_size(run.path)
        try:
            if run.alive:
                yield Item("run", run.id, size, "it still goes on")
            elif args.dry_run or retention.remove(run):
                yield Item("run", run.id, size)
        except OSError as error:
            stuck.append(error)


def _facts(item: Item, dry: bool) -> dict[str, object]:
    return {
        "kind": item.kind,
        "name": item.name,
        "bytes": item.size,
        "removed": not item.in_use and not dry,
        "in_use": item.in_use,
    }


def _size(size: int) -> str:
    return f" ({size / 1e6:.0f} MB)" if size else ""


def _days(text: str) -> float:
    try:
        days = float(text)
    except ValueError:
        days = -1.0
    if not 0 <= days < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of days")
    return days
