"""The command that runs a test again."""

from __future__ import annotations

import shlex
from collections.abc import Sequence


def command(nodeid: str, target: str, options: Sequence[str]) -> str:
    """For a shell in pytest's root directory. ``options``: what the run was asked for besides."""
    words = ["pytest", nodeid]
    if target:
        words.append(f"--hil-target={target}")
    return shlex.join([*words, *options])
