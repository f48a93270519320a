"""A table of text for people."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pytest_hil.errors import one_line


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print it, each column as wide as its widest cell. What could steer a terminal is shown."""
    table = [tuple(header), *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
