"""Power by anybody's own commands."""

from __future__ import annotations

import time
from dataclasses import dataclass
from subprocess import CompletedProcess
from typing import ClassVar

from pytest_hil import process
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import key, seconds
from pytest_hil.config.values import BadValue
from pytest_hil.errors import ProcessFailed, describe_exit, visible

# How much of what a command said is shown, in characters.
_LONGEST = 1000
# Seconds after its time for what a command said last to be there.
_GRACE = 2.0


def script(value: object) -> str:
    found = values.script(value)
    if not found.strip():
        raise BadValue("there is no command in it", 'write "uhubctl -l 1-1 -p 2 -a on"')
    return found


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """Keys of a ``power`` table with ``driver = "command"``."""

    on: str = key(script, help="a shell command that switches it on")
    off: str = key(script, help="a shell command that switches it off")
    read: str | None = key(
        script,
        default=None,
        help='a shell command that says whether it is on: it prints "on" or "off", or ends with '
        "exit code 0 for on and 1 for off",
    )
    timeout: float = key(seconds, default=30.0, help="how long a command may take, in seconds")


class CommandPower:
    """Commands that a shell (/bin/sh) runs on this host, with no input."""

    Options: ClassVar[type] = CommandOptions

    def __init__(self, options: CommandOptions) -> None:
        self._options = options

    def on(self) -> None:
        """Raises PowerError when the command fails or takes too long."""
        self._do(self._options.on)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._do(self._options.off)

    def read(self) -> bool | None:
        """What the command says; None without one. Raises PowerError when it says neither."""
        command = self._options.read
        if command is None:
            return None
        done = self._run(command)
        word = done.stdout.decode(errors="replace").strip().lower()
        # A word counts for more than the exit code: that is 0 also of a command that says "off".
        if word in ("on", "off") and done.returncode in (0, 1):
            if word == "on" and done.returncode == 1:
                raise self._failed(command, done, "said on and off at once: it")
            return word == "on"
        if done.returncode in (0, 1):
            return done.returncode == 0
        raise self._failed(command, done, "should end with 0 for on or 1 for off, and")

    def close(self) -> None:
        """Nothing is open."""

    def _do(self, command: str) -> None:
        done = self._run(command)
        if done.returncode:
            raise self._failed(command, done)

    def _run(self, command: str) -> CompletedProcess[bytes]:
        patience = max(self._options.timeout, 0.001)
        # It kills the whole process group: what was given up must not switch anything later.
        argv = ["timeout", "--signal=KILL", f"{patience:f}", "sh", "-c", command]
        began = time.monotonic()
        try:
            done = process.run(argv, timeout=patience + _GRACE, check=False)
        except ProcessFailed as error:
            # The shell has ended, but not what it left running with its output.
            raise self._late(command, error.output) from error
        if done.returncode and time.monotonic() - began >= patience:
            raise self._late(command, (done.stderr + done.stdout).decode(errors="replace"))
        return done

    def _late(self, command: str, said: str) -> PowerError:
        return PowerError(
            f"the command {_line(command)} did not end within {self._options.timeout:g} s"
            + _said(said),
            mend="if it is only slow, raise timeout; what it leaves running in the background "
            "must not keep its output: … >/dev/null 2>&1 &",
        )

    def _failed(self, command: str, done: CompletedProcess[bytes], how: str = "") -> PowerError:
        said = b"\n".join(part.strip() for part in (done.stderr, done.stdout) if part.strip())
        how = f"{how} ended with" if how else "ended with"
        return PowerError(
            f"the command {_line(command)} {how} {describe_exit(done.returncode)}"
            + _said(said.decode(errors="replace"))
        )


def _line(command: str) -> str:
    return "`" + visible(command.strip()) + "`"


def _said(text: str) -> str:
    text = visible(text.strip())
    return f"; it said: {text[-_LONGEST:]}" if text else " and said nothing"
