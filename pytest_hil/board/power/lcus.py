"""LCUS-1 to LCUS-8 and the like: USB relay boards that are a serial port (a CH340).

A command is four bytes: A0, the channel, 1 or 0, and the sum of the three. FF asks for the state:
some boards answer in words ("CH1: ON", a line for each relay), some with a byte 1 or 0 for each,
many not at all.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_hil.board.console.serial import port
from pytest_hil.board.power.serial_port import open_port
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import count, key
from pytest_hil.errors import InfrastructureError

_START, _QUERY = 0xA0, b"\xff"
_WORDS = re.compile(rb"CH ?([0-9]+) ?: ?(ON|OFF)(?!(?!CH)[A-Z])", re.IGNORECASE)
# What may be around them.
_BETWEEN = re.compile(rb"[\s,;\0]*")

# Seconds: for the first byte of an answer; for the next one, before the answer is over.
_FIRST, _NEXT = 0.5, 0.1
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class LcusOptions:
    """Keys of a ``power`` table with ``driver = "lcus"``."""

    port: str = key(
        port,
        help='"/dev/serial/by-path/…" (these boards have no serial number for by-id), '
        '"loc:1-1.4", or another form of a console\'s port',
    )
    channel: int = key(count(1, 32), default=1, help="the number of the relay, from 1")
    baudrate: int = key(count(50, 20_000_000), default=9600, help="bits per second")
    query: bool = key(
        values.boolean,
        default=True,
        help="ask the board for its state; one that does not answer within 0.5 s cannot say it",
    )


class LcusRelay:
    """One relay of such a board. Its port is open only while it is spoken to: several targets may
    be on one board.
    """

    Options: ClassVar[type] = LcusOptions

    def __init__(self, options: LcusOptions) -> None:
        self._options = options

    def on(self) -> None:
        """Raises PowerError, and InfrastructureError when the port may not be used."""
        self._command(1)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._command(0)

    def read(self) -> bool | None:
        """What the board says of the relay; None when it says nothing. Raises as :meth:`on`."""
        if not self._options.query:
            return None
        with self._opened() as line:
            # What came before it was opened is no answer: pyserial has discarded it.
            line.write(_QUERY)
            answer = _answer(line)
        return self._understood(answer) if answer else None

    def close(self) -> None:
        """It is not kept open."""

    def _command(self, state: int) -> None:
        head = bytes([_START, self._options.channel, state])
        with self._opened() as line:
            line.write(head + bytes([sum(head) & 0xFF]))
            line.flush()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Any]:
        def prepare(line: Any) -> None:
            line.timeout, line.write_timeout = _FIRST, 2.0

        options = self._options
        line = open_port(options.port, baudrate=options.baudrate, prepare=prepare)
        try:
            yield line
        # termios.error, of a port that is gone, is no OSError.
        except Exception as error:
            raise PowerError(f"the relay board at {options.port}: {error}") from error
        finally:
            line.close()

    def _understood(self, answer: bytes) -> bool:
        channel = self._options.channel
        words = {int(one[1]): one[2].upper() == b"ON" for one in _WORDS.finditer(answer)}
        if words and _BETWEEN.fullmatch(_WORDS.sub(b"", answer)):
            states = words
        elif set(answer) <= {0, 1}:
            states = {number: bool(state) for number, state in enumerate(answer, 1)}
        else:
            raise PowerError(
                f"the relay board at {self._options.port} answered {answer[:80]!r}",
                mend="is it an LCUS board, and its baud rate right? query = false asks no more",
            )
        if channel not in states:
            raise InfrastructureError(
                f"the relay board at {self._options.port} has no channel {channel}",
                mend=f"it has: {', '.join(map(str, sorted(states)))}",
            )
        return states[channel]


def _answer(line: Any) -> bytes:
    """All that comes until it is silent."""
    answer = b""
    while len(answer) < _LONGEST and (piece := line.read(1)):
        answer += piece + line.read(line.in_waiting)
        line.timeout = _NEXT
    return bytes(answer)
