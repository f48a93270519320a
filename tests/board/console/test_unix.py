"""Consoles behind a real Unix socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.board.console.open import open_console
from pytest_hil.board.console.unix import UnixConsole, UnixOptions
from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost

MiB = 2**20


def listening(path: Path, backlog: int = 5) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.settimeout(20)
    server.bind(str(path))
    server.listen(backlog)
    return server


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "uart.sock"


@pytest.fixture
def server(path: Path) -> Iterator[socket.socket]:
    with listening(path) as one:
        yield one


def opened(path: Path) -> Console:
    return Console(UnixConsole(UnixOptions(path)).open(), name="dut", grace=0.1)


def test_every_byte_passes_both_ways(path: Path, server: socket.socket) -> None:
    every = bytes(range(256))
    with opened(path) as console, server.accept()[0] as target:
        target.sendall(every + b"end")
        console.expect("end", timeout=10)
        assert console.raw_after(0)[1] == every + b"end"
        console.send(every)
        assert target.recv(256, socket.MSG_WAITALL) == every


def test_50_mb(
    path: Path, server: socket.socket, flooded: Callable[[Console, int, int], None]
) -> None:
    with opened(path) as console, server.accept()[0] as target:
        flooded(console, target.fileno(), 50 * MiB)


def test_it_ends_with_its_server(path: Path, server: socket.socket) -> None:
    with opened(path) as console:
        with server.accept()[0] as target:
            target.sendall(b"last words")
        console.expect("last words", timeout=10)
        assert console.wait_closed(10)


def test_no_such_file(path: Path) -> None:
    with pytest.raises(ChannelLost, match=r"uart.sock .*: there is no such file"):
        opened(path)
    with pytest.raises(ChannelLost, match="there is no such file"):
        opened(path / "below")


def test_nobody_listens(path: Path) -> None:
    listening(path).close()
    with pytest.raises(ChannelLost, match="nobody listens") as caught:
        opened(path)
    assert "has ended" in caught.value.mend


def test_no_socket(path: Path) -> None:
    path.write_text("")
    with pytest.raises(ChannelLost, match="nobody listens"):
        opened(path)


def test_a_path_that_is_too_long(path: Path) -> None:
    with pytest.raises(ChannelLost, match="too long") as caught:
        opened(path.parent / ("x" * 120))
    assert "107 bytes" in caught.value.mend


def test_a_server_that_takes_no_one(path: Path) -> None:
    with listening(path, backlog=0), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        with pytest.raises(ChannelLost, match="takes no one"):
            opened(path)


def test_open_console_from_the_directory_of_boards_toml(
    path: Path, server: socket.socket, section: Callable[..., Section]
) -> None:
    import dataclasses

    table = dataclasses.replace(section("unix", path="uart.sock"), base=path.parent)
    with open_console(table, name="dut") as console, server.accept()[0] as target:
        target.sendall(b"login: ")
        console.expect("login:", timeout=10)
