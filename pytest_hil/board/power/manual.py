"""Somebody who switches by hand, and is asked to on the terminal."""

from __future__ import annotations

import errno
import os
import select
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pytest_hil.config import values
from pytest_hil.config.driver import key, seconds
from pytest_hil.errors import InfrastructureError, visible

_TERMINAL = Path("/dev/tty")


@dataclass(frozen=True, slots=True)
class ManualOptions:
    """Keys of a ``power`` table with ``driver = "manual"``."""

    what: str = key(values.text, default="the board", help="what the question calls it")
    timeout: float = key(
        seconds, default=600.0, help="how long somebody has to do it and to say so, in seconds"
    )


class ManualPower:
    """Asks on the controlling terminal, so pytest's capturing is no hindrance.

    What goes wrong is no PowerError: nobody is to be asked again for the same.
    """

    Options: ClassVar[type] = ManualOptions

    def __init__(self, options: ManualOptions, *, terminal: Path = _TERMINAL) -> None:
        self._options = options
        self._terminal = terminal

    def on(self) -> None:
        """Raises InfrastructureError without a terminal, or when it was not done."""
        self._ask("on")

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._ask("off")

    def read(self) -> bool | None:
        """Nobody is asked for that: always None."""
        return None

    def close(self) -> None:
        """Nothing is open."""

    def _ask(self, word: str) -> None:
        asked = f"switch {visible(self._options.what)} {word}"
        fd = self._opened(asked)
        try:
            self._check_foreground(fd, asked)
            # What was typed before is no answer.
            termios.tcflush(fd, termios.TCIFLUSH)
            os.write(fd, f"\r\n>>> Please {asked}, then press Enter (q: no): ".encode())
            answer = self._line(fd, asked)
        except (OSError, termios.error) as error:
            raise InfrastructureError(f"the terminal is gone: {error}; {asked}") from error
        finally:
            os.close(fd)
        if answer is None or answer.strip().lower() in ("q", "n", "no"):
            raise InfrastructureError(f"somebody was asked to {asked}, and did not")

    def _opened(self, asked: str) -> int:
        try:
            fd = os.open(self._terminal, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            why = "" if error.errno == errno.ENXIO else f" ({error})"
            raise InfrastructureError(
                f"nobody can be asked to {asked}: this run has no terminal{why}",
                mend="run it in a terminal, or write a power driver that switches by itself",
            ) from None
        if not os.isatty(fd):
            os.close(fd)
            raise InfrastructureError(f"nobody can be asked to {asked}: no terminal")
        return fd

    def _check_foreground(self, fd: int, asked: str) -> None:
        try:
            there = os.tcgetpgrp(fd)
        except OSError:
            return  # not our controlling terminal: nothing stops us
        if there != os.getpgrp():
            # To read would stop the whole process (SIGTTIN).
            raise InfrastructureError(
                f"nobody can be asked to {asked}: this run is in the background of its terminal",
                mend="bring it to the foreground: fg",
            )

    def _line(self, fd: int, asked: str) -> str | None:
        """What is typed up to Enter; None at the end of input (Ctrl-D)."""
        until = time.monotonic() + self._options.timeout
        line = b""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        # Where somebody has made the terminal raw, Enter is \r.
        while not line.endswith((b"\n", b"\r")):
            if not poll.poll(max(0.0, until - time.monotonic()) * 1000):
                os.write(fd, b"\r\n")
                raise InfrastructureError(
                    f"somebody was asked to {asked}, and did not answer within "
                    f"{self._options.timeout:g} s"
                )
            piece = os.read(fd, 1024)
            if not piece or piece == b"\x04":
                os.write(fd, b"\r\n")
                return None
            line += piece
        return line.decode(errors="replace")
