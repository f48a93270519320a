"""Messages between commands and servers, on real sockets."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from pytest_hil.cli.started import wire
from pytest_hil.errors import ChannelLost, ProtocolError


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        for each in (here, there):
            each.settimeout(10)
        yield here, there


def test_messages_arrive_and_nothing_behind_them_is_read(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    here, there = ends
    wire.send(here, {"verb": "console"}, b"a\nb\0")
    wire.send(here, {"word": "ä"})
    here.sendall(b"raw bytes\n")
    assert wire.receive(there) == ({"verb": "console"}, b"a\nb\0")
    assert wire.receive(there) == ({"word": "ä"}, b"")
    assert there.recv(100) == b"raw bytes\n"
    here.close()
    assert wire.receive(there) is None


def test_a_line_longer_than_one_read(ends: tuple[socket.socket, socket.socket]) -> None:
    here, there = ends
    wire.send(here, {"command": "x" * 20_000}, b"payload")
    assert wire.receive(there) == ({"command": "x" * 20_000}, b"payload")


@pytest.mark.parametrize("cut", [b'{"size"', b'{"size": 5}\nab'])
def test_an_end_in_the_middle(ends: tuple[socket.socket, socket.socket], cut: bytes) -> None:
    here, there = ends
    here.sendall(cut)
    here.close()
    with pytest.raises(ChannelLost, match="in the middle"):
        wire.receive(there)


@pytest.mark.parametrize(
    "wrong", [b"GET /\n", b"[]\n", b"1\n", b"{}\n", b'{"size": -1}\n', b'{"size": 1e99}\n']
)
def test_nonsense(ends: tuple[socket.socket, socket.socket], wrong: bytes) -> None:
    here, there = ends
    here.sendall(wrong)
    with pytest.raises(ProtocolError, match="not a message"):
        wire.receive(there)
