"""Boards as whoever uses them has them: raw bytes on a socket, a power switch over HTTP."""

from __future__ import annotations

import json
import re
import socket
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pytest_hil.rig.board import RigBoard
from pytest_hil.rig.rig import Rig


class Line:
    """A connection to a board's serial line over TCP."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=5)
        self.said = b""

    def until(self, pattern: bytes, *, timeout: float = 10.0) -> bytes:
        """All up to the end of the first match; what follows is kept for the next call."""
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.said)) is None:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"no {pattern!r} in {self.said!r}") from None
            assert data, f"it ended; it had said {self.said!r}"
            self.said += data
        taken, self.said = self.said[: match.end()], self.said[match.end() :]
        return taken

    def ended(self, *, timeout: float = 5.0) -> bool:
        """Whether the other side ends the connection within this time."""
        self.socket.settimeout(timeout)
        try:
            while data := self.socket.recv(65536):
                self.said += data
        except TimeoutError:
            return False
        except ConnectionResetError:
            pass
        return True

    def silent(self, seconds: float) -> bytes:
        """What comes within this time."""
        found, self.said = self.said, b""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                break
            assert data, "it ended"
            found += data
        return found

    def type(self, text: str) -> None:
        self.socket.sendall(f"{text}\r".encode())

    def log_in(self, *, asked: bool = False) -> None:
        """``asked``: the login prompt was taken already."""
        if not asked:
            self.until(rb"login: $")
        self.type("root")
        self.until(rb"Password: $")
        self.type("hil")
        self.until(rb"# ")


class Http:
    """A GET of the switchboard's: status and what its JSON says."""

    def __init__(self, rig: Rig) -> None:
        self.url = rig.switchboard.url

    def __call__(self, path: str, **query: object) -> Any:
        return self.get(path, **query)[1]

    def get(self, path: str, **query: object) -> tuple[int, Any]:
        words = {name: str(value) for name, value in query.items()}
        url = f"{self.url}{path}?{urllib.parse.urlencode(words, quote_via=urllib.parse.quote)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)


@pytest.fixture
def connect() -> Iterator[Callable[[RigBoard], Line]]:
    """Connects to a board's TCP line."""
    with ExitStack() as opened:

        def make(board: RigBoard) -> Line:
            line = Line(board.outside.console["address"])
            opened.callback(line.socket.close)
            return line

        yield make


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Three light boards."""
    with Rig(boards=3) as made:
        yield made


@pytest.fixture
def http(rig: Rig) -> Http:
    return Http(rig)
