"""How a source file is called in reports."""

from __future__ import annotations

from pathlib import Path


def short(path: str, base: Path) -> str:
    """From a directory on, where it is below it; else the whole path."""
    here = Path(path)
    return here.relative_to(base).as_posix() if here.is_relative_to(base) else path
