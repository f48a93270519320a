"""What both directions of a transfer share."""

from __future__ import annotations

STALL = 30.0
"""Seconds without any progress until a transfer is given up."""


class Refused(Exception):
    """The agent said no."""

    def __init__(self, text: str) -> None:
        self.text = text
