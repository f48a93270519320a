"""``pytest-hil report [RUN]``: a run as one file for a browser, or as JSON for other tools."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.artifacts import index
from pytest_hil.artifacts.report import ctrf, page
from pytest_hil.artifacts.report.gather import gather, run_called
from pytest_hil.cli.artifacts import artifacts_root
from pytest_hil.errors import ConfigError, HilError

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "report",
        help="make a page of a run, or JSON: outcomes, consoles, crashes, times",
        description="Make report.html of a run: one file for a browser, without a network. A run "
        "that goes on, or was killed, gives a page of what there is.",
    )
    parser.add_argument(
        "run_id",
        metavar="RUN",
        nargs="?",
        default=index.LATEST,
        help="an id, the beginning of one, or a run's directory (default: latest)",
    )
    parser.add_argument(
        "--artifacts",
        metavar="DIR",
        type=Path,
        help="the artifacts' directory (default: .hil here, or in the nearest directory above)",
    )
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="where to write it (default: in the run's directory); - is stdout, for --format=ctrf",
    )
    parser.add_argument(
        "--format",
        choices=("html", "ctrf"),
        default="html",
        help="html (the default), or ctrf: JSON in the Common Test Report Format",
    )
    parser.add_argument("--open", action="store_true", help="show it in a browser")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    html = args.format == "html"
    if html and args.output == "-":
        raise ConfigError("--output", "a page cannot go to stdout", mend="give a file")
    if args.open and not html:
        raise ConfigError("--open", "only a page can be shown", mend="leave out --format")
    here = "/" in args.run_id and (Path(args.run_id) / "run.json").is_file()
    root = Path() if here else artifacts_root(args.artifacts)
    gathered = gather(run_called(root, args.run_id))
    if args.output == "-":
        sys.stdout.write(ctrf.dumped(gathered) + "\n")
        return 0
    named = page.NAME if html else ctrf.NAME
    output = Path(args.output) if args.output else gathered.run.path / named
    if output.is_dir():
        output = output / named
    try:
        (page if html else ctrf).write(gathered, output)
    except OSError as error:
        raise HilError(f"{output} cannot be written: {error.strerror or error}") from None
    if output.is_file():  # not into a pipe, after the page
        print(output)
    if args.open:
        import webbrowser

        if not webbrowser.open(output.absolute().as_uri()):
            raise ConfigError("--open", "there is no browser here", mend=f"open {output} yourself")
    return 0
