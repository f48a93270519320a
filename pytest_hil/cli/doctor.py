"""``pytest-hil doctor``: what this host has for us, what it lacks, and what mends it."""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from pytest_hil.cli.checks import host, programs
from pytest_hil.cli.checks.check import Check, Finding, perform, worst
from pytest_hil.cli.status import Status

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers

_BOOTS = 150.0
_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}
_WORDS = {"ok": "ok", "note": "note", "problem": "PROBLEM"}
_NAME_WIDTH, _WORD_WIDTH = 12, 7


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "doctor",
        help="say what this host lacks, and what mends it",
        description="Look at all that machines need. Exit code 0: everything needed is there; "
        "a note is about what works all the same. 1: there is a problem.",
    )
    parser.add_argument("--json", action="store_true", help="JSON instead of text")
    return parser


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    found = []
    with Status() as status:
        for check in _checks(status):
            if status.live:
                status(f"looking at: {check.name}")
            finding = perform(check)
            found.append((check.name, finding))
            if not args.json:
                status.end()
                _print(check.name, finding)
    findings = [finding for _, finding in found]
    if args.json:
        rows = [{"check": name, **dataclasses.asdict(finding)} for name, finding in found]
        print(json.dumps({"status": worst(findings), "checks": rows}, indent=2))
    else:
        print(_summary(findings))
    return 1 if worst(findings) == "problem" else 0


def _checks(status: Status) -> list[Check]:
    """What killed runs left comes before anything that would clear it away."""
    return [
        Check("Python", programs.python),
        Check("setpriv", programs.setpriv),
        Check("QEMU", programs.qemu, timeout=60.0),
        Check("other archs", programs.other_qemus, timeout=60.0),
        Check("qemu-img", programs.qemu_img),
        Check("runtime dir", host.runtime_directory),
        Check("left behind", host.left_behind),
        Check("cache", host.cache),
        Check("apt", programs.apt),
        Check("agent", programs.agent),
        Check("image", host.image),
        Check("accelerator", partial(host.accelerator, status), timeout=_BOOTS),
        Check("memory", host.memory),
        Check("disk", host.disk),
        Check("boards.toml", host.boards),
    ]


def _summary(findings: Sequence[Finding]) -> str:
    problems = sum(finding.status == "problem" for finding in findings)
    if problems:
        return f"\n{problems} problem{'s' * (problems > 1)}: machines may not start before mended"
    return "\neverything needed is there"


def _print(name: str, finding: Finding) -> None:
    from rich.console import Console
    from rich.text import Text

    # Whole lines where no person reads them; no colours there by itself.
    terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if terminal else 10_000
    console = Console(file=sys.stdout, width=width, highlight=False, soft_wrap=True)
    indent = " " * (_NAME_WIDTH + _WORD_WIDTH + 2)
    first, *rest = _lines(finding.text, width - len(indent))
    line = Text(f"{name:<{_NAME_WIDTH}} ")
    line.append(f"{_WORDS[finding.status]:<{_WORD_WIDTH}}", style=_STYLES[finding.status])
    console.print(line.append(f" {first}"))
    for each in rest:
        console.print(Text(f"{indent}{each}"))
    arrow = "→"
    for each in _lines(finding.mend, width - len(indent) - 2) if finding.mend else ():
        console.print(Text(f"{indent}{arrow} {each}", style="cyan"))
        arrow = " "


def _lines(text: str, width: int) -> list[str]:
    wrap = partial(
        textwrap.wrap, width=max(20, width), break_long_words=False, break_on_hyphens=False
    )
    return [line for part in text.splitlines() for line in wrap(part) or [""]] or [""]
