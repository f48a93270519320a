"""Programs that start programs, which must not outlive us: make and its compilers.

The signal that process.py arranges for reaches the child only; what that has started would go on.
So a second process of its group reads a pipe of ours: when that ends, whatever killed us, it kills
the group.
"""

from __future__ import annotations

import os
import subprocess
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pytest_hil import process

_KEPT = 400
"""Lines of output."""
_LONGEST = 65536
"""A line without an end is cut there, in bytes."""

# Not in the foreground: the shell becomes the program, and so its exit code is the program's. The
# other one has none of the outputs: they end when the program's processes do.
_TOGETHER = """\
exec 3<&0 </dev/null
(read -r _ <&3; kill -KILL 0) >/dev/null 2>&1 &
exec "$@" 3<&-
"""


@dataclass(frozen=True, slots=True)
class Ended:
    """``said``: its last lines, outputs and errors in their order."""

    exit_code: int
    said: tuple[str, ...]


def run(
    argv: Sequence[str],
    *,
    line: Callable[[str], None] = lambda _line: None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Ended:
    """Run a program to its end; ``line`` hears each line that it prints.

    However it is left, no process of the program's group is there afterwards.
    """
    process.find(argv[0])
    said: deque[str] = deque(maxlen=_KEPT)
    with process.start(
        ["sh", "-c", _TOGETHER, "sh", *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=env,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        try:
            for text in _lines(child.stdout):
                said.append(text)
                line(text)
            code = child.wait()
            assert code is not None  # it waits for ever
        finally:
            child.stdin.close()
            # Its end is the group's: only then may somebody remove what it wrote to.
            while os.read(child.stdout.fileno(), _LONGEST):
                pass
    return Ended(code, tuple(said))


def _lines(stream: IO[bytes]) -> Iterator[str]:
    rest = b""
    while data := os.read(stream.fileno(), _LONGEST):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _LONGEST:
            lines, rest = [*lines, rest], b""
        for each in lines:
            yield each.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")
