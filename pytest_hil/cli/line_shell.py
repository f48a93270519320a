"""A shell for a person through the agent: a line at a time, beside the console."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pytest_hil.errors import TargetError

if TYPE_CHECKING:
    from pytest_hil.qemu.guest import Guest

# What no program prints by chance, before the directory that a line left behind.
_MARK = "\x1epytest-hil-cwd:"


def talk(guest: Guest) -> int:
    """Read lines until the end of stdin, run each; the directory is kept from one to the next."""
    where = "/"
    code = 0
    while (line := _read(f"{guest.name}:{where}# ")) is not None:
        if not line.strip():
            continue
        script = f"{line}\ncode=$?; printf '{_MARK}%s' \"$PWD\"; exit $code"
        try:
            done = guest.run(["/bin/sh", "-c", script], check=False, timeout=None, cwd=where)
        except TargetError as error:
            print(error, file=sys.stderr)
            continue
        said, mark, left = done.stdout.rpartition(_MARK)
        where = left if mark else where
        sys.stdout.write(said if mark else done.stdout)
        sys.stderr.write(done.stderr)
        code = done.exit_code
        if code:
            print(f"[exit code {code}]", file=sys.stderr)
    return max(0, code)


def _read(prompt: str) -> str | None:
    try:
        if sys.stdin.isatty():
            # Line editing and history, where Python has them.
            import contextlib

            with contextlib.suppress(ImportError):
                import readline  # noqa: F401
            return input(prompt)
        return input()
    except EOFError:
        return None
