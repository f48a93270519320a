"""Saying what is being done now, to whoever wants to show it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str], None]
"""Takes one status line, such as ``downloading linux-image-amd64: 12 of 60 MB``."""


def silent(_line: str) -> None:
    """Say nothing."""
