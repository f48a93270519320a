"""What the host's kernel says about memory, in bytes."""

from __future__ import annotations

import re
from pathlib import Path


def available() -> int:
    """What new work could have without swapping (MemAvailable, proc(5))."""
    return _field(Path("/proc/meminfo"), "MemAvailable")


def private_dirty(pid: int) -> int:
    """What a process has written to and shares with nobody."""
    return _field(Path(f"/proc/{pid}/smaps_rollup"), "Private_Dirty")


def _field(path: Path, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", path.read_text(), re.MULTILINE)
    if found is None:
        raise ValueError(f"{path} has no line {name}")
    return int(found[1]) * 1024
