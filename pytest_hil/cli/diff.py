"""``pytest-hil diff RUN RUN``: what changed from one run to another."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.artifacts import index
from pytest_hil.artifacts.report import diff
from pytest_hil.artifacts.report.diff import Change, Difference
from pytest_hil.artifacts.report.gather import Gathered, gather, run_called
from pytest_hil.cli.artifacts import artifacts_root
from pytest_hil.errors import visible

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

_SECTIONS = {
    "new": "newly failing",
    "fixed": "fixed",
    "still": "still failing",
    "flaky": "flaky",
    "slower": "slower",
    "added": "added",
    "removed": "removed",
}
_MOST_LINES = 30


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "diff",
        help="say what changed from one run to another",
        description="Say which tests fail that did not, were fixed, are flaky, slower, added or "
        "removed. The exit code is 1 if some test is newly failing.",
    )
    parser.add_argument("before", metavar="RUN", help="an id, the beginning of one, or a directory")
    parser.add_argument(
        "after",
        metavar="RUN",
        nargs="?",
        default=index.LATEST,
        help="the later one (default: latest)",
    )
    parser.add_argument(
        "--artifacts",
        metavar="DIR",
        type=Path,
        help="the artifacts' directory (default: .hil here, or in the nearest directory above)",
    )
    parser.add_argument(
        "--slower",
        metavar="FACTOR",
        type=_factor,
        default=diff.SLOWER,
        help="how many times as long a test must take to be called slower, beside how much slower "
        f"all tests were (default: {diff.SLOWER:g})",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    directories = all("/" in name and Path(name).is_dir() for name in (args.before, args.after))
    root = Path() if directories else artifacts_root(args.artifacts)
    before, after = (gather(run_called(root, name)) for name in (args.before, args.after))
    found = diff.difference(before.tests, after.tests, slower=args.slower)
    if args.json:
        content = {"before": before.run.id, "after": after.run.id, **asdict(found)}
        print(json.dumps(content, indent=2))
    else:
        print("\n".join(_text(before, after, found)))
    return 1 if found.new else 0


def _text(before: Gathered, after: Gathered, found: Difference) -> list[str]:
    lines = [f"{_head(before)}\n{_head(after)}"]
    if found.pace >= 1.1:
        lines.append(f"(all tests took {found.pace:.1f} times as long)")
    for name, title in _SECTIONS.items():
        changes: Sequence[Change] = getattr(found, name)
        if not changes:
            continue
        lines += ["", f"{len(changes)} {title}:"]
        lines += [f"  {_line(name, change)}" for change in changes[:_MOST_LINES]]
        if len(changes) > _MOST_LINES:
            lines.append(f"  … and {len(changes) - _MOST_LINES} more (--json has all)")
    if not any(getattr(found, name) for name in _SECTIONS):
        lines += ["", "no difference"]
    return lines


def _head(gathered: Gathered) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in gathered.counts.items())
    return f"{gathered.run.id}  {counts or 'no tests'}"


def _line(section: str, change: Change) -> str:
    name = f"{change.nodeid} on {change.target}" if change.target else change.nodeid
    if section == "slower" and change.seconds:
        was, now = change.seconds
        return visible(f"{name}: {was:.2f} s → {now:.2f} s")
    if section in ("new", "still", "flaky"):
        way = f"{change.before or 'not there'} → {change.after or 'not there'}"
        return visible(f"{name}: {way}{f': {change.reason}' if change.reason else ''}")
    return visible(f"{name}: {change.before if section == 'removed' else change.after}")


def _factor(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 1 <= number < 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is no factor: write a number such as 1.5")
    return number
