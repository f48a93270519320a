"""``pytest-hil artifacts ls|show|clean``: what runs have kept."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hil.artifacts import index, retention
from pytest_hil.artifacts.index import RunRecord, TestRecord
from pytest_hil.console.stream import TextStream, clean
from pytest_hil.errors import ConfigError, nearest, visible

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

_LAST_LINES = 20
_LAST_BYTES = 16 * 1024


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "artifacts",
        help="list, show and remove what runs have kept",
        description="What runs have kept: consoles, events, machines of failed tests.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--artifacts",
        metavar="DIR",
        type=Path,
        help="the artifacts' directory (default: .hil here, or in the nearest directory above)",
    )
    common.add_argument("--json", action="store_true", help="JSON instead of text")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_ls(actions, common)
    _add_show(actions, common)
    _add_clean(actions, common)
    return parser


def _add_ls(actions: Subparsers, common: argparse.ArgumentParser) -> None:
    ls = actions.add_parser("ls", parents=[common], help="list the runs, or the tests of a run")
    ls.add_argument("--run", metavar="RUN", help="list this run's tests (an id, or 'latest')")


def _add_show(actions: Subparsers, common: argparse.ArgumentParser) -> None:
    show = actions.add_parser("show", parents=[common], help="show what one test has left")
    show.add_argument("test", metavar="TEST", help="a node id, or a part of it")
    show.add_argument("--run", metavar="RUN", default=index.LATEST, help="default: latest")
    what = show.add_mutually_exclusive_group()
    what.add_argument("--console", action="store_true", help="all that its console said")
    what.add_argument("--events", action="store_true", help="what happened, one line each")
    what.add_argument("--path", action="store_true", help="only where it is")


def _add_clean(actions: Subparsers, common: argparse.ArgumentParser) -> None:
    clean = actions.add_parser("clean", parents=[common], help="remove old runs")
    how = clean.add_mutually_exclusive_group()
    how.add_argument(
        "--keep",
        metavar="N",
        type=_positive,
        default=retention.KEEP,
        help=f"keep the last N (default: {retention.KEEP})",
    )
    how.add_argument("--all", action="store_true", help="remove all that do not still go on")


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    root = artifacts_root(args.artifacts)
    if args.action == "ls":
        return _ls(root, args)
    if args.action == "show":
        return _show(root, args)
    return _clean(root, args)


def _ls(root: Path, args: argparse.Namespace) -> int:
    if args.run is None:
        runs = index.runs(root)
        if args.json:
            _print_json([_run_facts(run) for run in runs])
        elif runs:
            _print_table(("run", "status", "tests", "targets"), [_run_row(run) for run in runs])
        else:
            print(f"no runs in {root}")
        return 0
    tests = index.find_run(root, args.run).tests()
    if args.json:
        _print_json([_test_facts(test) for test in tests])
    elif tests:
        _print_table(("outcome", "seconds", "target", "test"), [_test_row(t) for t in tests])
    else:
        print("no test of this run used a target")
    return 0


def _show(root: Path, args: argparse.Namespace) -> int:
    run = index.find_run(root, args.run)
    test = _one_test(run, args.test)
    if args.path:
        _print_json({"path": str(test.path)}) if args.json else print(test.path)
    elif args.console:
        _print_console(test.path / "console.log")
    elif args.events:
        events = list(index.lines(test.path / "events.jsonl"))
        _print_json(events) if args.json else _print_events(events)
    elif args.json:
        _print_json(_test_facts(test))
    else:
        _print_summary(test)
    return 0


def _clean(root: Path, args: argparse.Namespace) -> int:
    stuck: list[OSError] = []
    if args.all:
        removed = retention.remove_all(root, on_trouble=stuck.append)
    else:
        removed = retention.prune(root, args.keep, on_trouble=stuck.append)
    kept = [run.id for run in index.runs(root)]
    if args.json:
        _print_json({"removed": removed, "kept": kept})
    else:
        for run in removed:
            print(f"removed {run}")
        print(f"{len(removed)} removed, {len(kept)} kept in {root}")
    return say_stuck(stuck)


def say_stuck(errors: Sequence[OSError]) -> int:
    """Say on stderr what could not be removed, and why; the exit code."""
    for error in errors:
        print(f"pytest-hil: cannot be removed: {error.filename}: {error.strerror}", file=sys.stderr)
    return 1 if errors else 0


def _one_test(run: RunRecord, wanted: str) -> TestRecord:
    found = index.find_tests(run, wanted)
    if len(found) == 1:
        return found[0]
    if not found:
        names = [test.nodeid for test in run.tests()]
        raise ConfigError(f"run {run.id}", f"no test has {wanted!r}", mend=nearest(wanted, names))
    names = [test.path.name for test in found]
    raise ConfigError(
        f"run {run.id}", f"{len(found)} tests have {wanted!r}", mend=f"one of: {', '.join(names)}"
    )


def artifacts_root(given: Path | None) -> Path:
    """The directory given with ``--artifacts``, else ``.hil`` here or in the nearest above.

    Raises ConfigError when there is none.
    """
    if given is not None:
        if not given.is_dir():
            raise ConfigError("--artifacts", f"{given} is not a directory")
        return given
    here = Path.cwd()
    for directory in (here, *here.parents):
        if (directory / ".hil").is_dir():
            return directory / ".hil"
    raise ConfigError(
        str(here), "there is no .hil here nor above", mend="give its place with --artifacts=DIR"
    )


def _run_facts(run: RunRecord) -> dict[str, Any]:
    return {
        **run.facts,
        "id": run.id,
        "path": str(run.path),
        "status": run.status,
        "outcomes": _outcomes(run.tests()),
    }


def _test_facts(test: TestRecord) -> dict[str, Any]:
    files = {path.name: size for path, size in _files(test.path)}
    return {**test.meta, "path": str(test.path), "status": test.status, "files": files}


def _run_row(run: RunRecord) -> tuple[str, ...]:
    counts = _outcomes(run.tests())
    tests = ", ".join(f"{count} {outcome}" for outcome, count in counts.items()) or "none"
    return run.id, run.status, tests, ", ".join(run.targets)


def _test_row(test: TestRecord) -> tuple[str, ...]:
    duration = "" if test.duration is None else f"{test.duration:.2f}"
    return test.outcome or test.status, duration, test.target, test.nodeid


def _outcomes(tests: Sequence[TestRecord]) -> dict[str, int]:
    return dict(Counter(test.outcome or test.status for test in tests))


def _files(directory: Path) -> list[tuple[Path, int]]:
    files = [p for p in directory.iterdir() if p.is_file() and not p.name.startswith(".")]
    return [(path, path.stat().st_size) for path in sorted(files)]


def _print_summary(test: TestRecord) -> None:
    outcome, duration, target, nodeid = _test_row(test)
    print(f"{nodeid} on {target}: {outcome}{f' after {duration} s' if duration else ''}")
    print(test.path)
    for path, size in _files(test.path):
        print(f"  {path.name:<16} {size:>12,} bytes")
    last = _last_lines(test.path / "console.log")
    if last:
        print("the console's last lines:")
        for line in last:
            print(f"  {line}")


def _last_lines(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _LAST_BYTES))
            return visible(clean(file.read())).splitlines()[-_LAST_LINES:]
    except FileNotFoundError:
        return []


def _print_console(log: Path) -> None:
    """The clean text: what a target printed must not steer the reader's terminal."""
    stream = TextStream()
    try:
        with log.open("rb") as file:
            while data := file.read(1 << 20):
                sys.stdout.write(visible(stream.feed(data)))
    except FileNotFoundError:
        raise ConfigError(str(log), "this test has no console") from None
    sys.stdout.write(visible(stream.finish()))


def _print_events(events: Sequence[dict[str, Any]]) -> None:
    for event in events:
        facts = {k: v for k, v in event.items() if k not in ("t", "time", "kind")}
        said = " ".join(f"{key}={json.dumps(value)}" for key, value in facts.items())
        t = event.get("t")
        when = f"{t:10.3f}" if isinstance(t, int | float) else f"{'?':>10}"
        print(f"{when} s  {event.get('kind', '?')}  {said}".rstrip())


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))  # Text: a node id's [..] is no markup
    # Not a terminal: no colours by itself, and no line is folded.
    width = None if sys.stdout.isatty() else max(80, *(_width(row) for row in (header, *rows)))
    Console(file=sys.stdout, width=width).print(table)


def _width(row: Sequence[str]) -> int:
    return sum(len(cell) for cell in row) + 200


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2))


def _positive(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on; --all removes all")
    return number
