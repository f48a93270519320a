"""A console whose target is the other end of a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import pytest

from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport


@dataclass
class Line:
    """A console and the socket on which the test plays the target."""

    console: Console
    target: socket.socket

    def says(self, data: bytes) -> None:
        """Send, and wait until the console has it."""
        end = self.console.mark().raw + len(data)
        self.target.sendall(data)
        wait_for(self.console, end)


def wait_for(console: Console, offset: int) -> None:
    """Wait until the console has heard that many bytes, by its own notification."""
    changed = console._capture.changed
    with changed:
        assert changed.wait_for(lambda: console.mark().raw >= offset, 10)


class Connect(Protocol):
    def __call__(
        self, *, history: bytes = b"", keep: int = 4 * 2**20, grace: float = 0.1
    ) -> Line: ...


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes lines; they are closed at the end."""
    with ExitStack() as lines:

        def make(*, history: bytes = b"", keep: int = 4 * 2**20, grace: float = 0.1) -> Line:
            ours, theirs = socket.socketpair()
            theirs.settimeout(10)
            lines.enter_context(theirs)
            console = Console(
                SocketTransport(ours), name="dut", history=history, keep=keep, grace=grace
            )
            return Line(lines.enter_context(console), theirs)

        yield make


@pytest.fixture
def line(connect: Connect) -> Line:
    return connect()
