"""``pytest-hil VERB …``: finds the verb, runs it, says its errors.

A verb is a module with two functions::

    def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser
        # subparsers.add_parser("NAME", help=…, description=…), and its arguments
    def run(args: argparse.Namespace) -> int
        # does it, prints to stdout, returns the exit code; raises HilError

Only the verb that is asked for is imported, so that ``--help`` answers at once.
Exit codes: 0 done, 1 failed, 2 wrongly asked (options, boards.toml), 130 Ctrl-C,
141 the reader of our output went away.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from pytest_hil.errors import ConfigError, HilError, nearest

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


@dataclass(frozen=True, slots=True)
class Verb:
    """A verb's module, and its line in ``pytest-hil --help``."""

    module: str
    help: str


VERBS: Mapping[str, Verb] = {
    "doctor": Verb("pytest_hil.cli.doctor", "say what this host lacks, and what mends it"),
    "image": Verb("pytest_hil.cli.image", "build, list, verify and remove guest images"),
    "kernel": Verb("pytest_hil.cli.kernel", "build kernels that find bugs"),
    "vm": Verb("pytest_hil.cli.vm", "start, list, use and stop machines by hand"),
    "console": Verb("pytest_hil.cli.console", "connect this terminal to a machine's console"),
    "open": Verb("pytest_hil.cli.open", "open the machine of a failed test as it failed"),
    "boards": Verb("pytest_hil.cli.boards", "check and show what boards.toml says of boards"),
    "lab": Verb("pytest_hil.cli.lab", "show, check and reserve the boards that runs share"),
    "rig": Verb("pytest_hil.cli.rig", "run emulated boards that stand in for physical ones"),
    "usbip": Verb("pytest_hil.cli.usbip", "check, list and run USB/IP servers"),
    "artifacts": Verb("pytest_hil.cli.artifacts", "list, show and remove what runs have kept"),
    "watch": Verb("pytest_hil.cli.watch", "follow a run from another terminal"),
    "report": Verb("pytest_hil.cli.report", "make a page of a run, or JSON"),
    "diff": Verb("pytest_hil.cli.diff", "say what changed from one run to another"),
    "clean": Verb("pytest_hil.cli.clean", "remove what dead runs left, and old templates"),
}


def main(argv: Sequence[str] | None = None, *, verbs: Mapping[str, Verb] = VERBS) -> int:
    """Run one verb and return its exit code; argparse's own errors raise SystemExit(2)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    _have_streams()
    try:
        code = _dispatch(arguments, verbs)
        # Here, not at interpreter exit: there a closed pipe would be a traceback.
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_stdout()
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        # Perhaps of stdout itself (a full disk): what it still holds would fail at the end again.
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        _forget_stdout()
        print(f"pytest-hil: {error}", file=sys.stderr)
        return 1
    except HilError as error:
        print(f"pytest-hil: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    return code


def _dispatch(arguments: Sequence[str], verbs: Mapping[str, Verb]) -> int:
    chosen = next((word for word in arguments if not word.startswith("-")), "")
    parser = argparse.ArgumentParser(
        prog="pytest-hil",
        description="What pytest --hil-target needs besides pytest: its images, machines and logs.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    subparsers = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs")
    module: ModuleType | None = None
    for name, verb in verbs.items():
        if name == chosen:
            module = import_module(verb.module)
            module.add_parser(subparsers)
        else:
            subparsers.add_parser(name, help=verb.help)
    if chosen and module is None:
        parser.error(f"there is no verb {chosen!r}; {nearest(chosen, verbs)}")
    args = parser.parse_args(arguments)
    if args.version:
        print(f"pytest-hil {_version()}")
        return 0
    if module is None:
        parser.error(f"which verb? one of: {', '.join(verbs)}")
    code: int = module.run(args)
    return code


def _version() -> str:
    # importlib.metadata costs tens of milliseconds: only where the version is asked for.
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-hil")
    except PackageNotFoundError:
        return "(not installed)"


def _have_streams() -> None:
    """Who started us may have closed stdin, stdout or stderr: then they lead nowhere.

    Before anything else is opened: it would get one of their numbers.
    """
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != fd:
                os.dup2(nowhere, fd)
                os.close(nowhere)
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w", closefd=False))
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no ellipsis or arrow gets a question mark, not a traceback.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="replace")


def _forget_stdout() -> None:
    """Nobody reads our output any more: what is still buffered goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


if __name__ == "__main__":
    sys.exit(main())
