"""What a person sees: the host, a status line, the table."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.result import Line


def host() -> str:
    """The processor, how many, and how busy they are: half of what any figure means."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    name = found[1] if found else os.uname().machine
    cpus = len(os.sched_getaffinity(0))
    return f"{cpus} × {name}, load {os.getloadavg()[0]:.1f}"


def table(lines: Sequence[Line]) -> Table:
    out = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "ours", "best", "peer", "ratio", "unit", "n", "bound", ""):
        out.add_column(title, justify="left" if title in ("name", "unit", "bound") else "right")
    for each in lines:
        out.add_row(
            each.name,
            _number(each.ours),
            _number(each.best),
            _number(each.peer),
            _number(each.ratio),
            each.unit,
            str(each.n),
            ", ".join(map(str, each.bounds)),
            "[green]holds[/]" if each.holds else "[red]missed[/]",
        )
    return out


def show(lines: Sequence[Line], console: Console) -> None:
    console.print(table(lines))


def _number(value: float | None) -> str:
    """Three digits that count."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
