"""Two connections made one."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

from pytest_hil.attach.relay import Relay

PATIENCE = 30.0


@contextlib.contextmanager
def relayed() -> Iterator[tuple[Relay, socket.socket, socket.socket]]:
    left, ours = socket.socketpair()
    also_ours, right = socket.socketpair()
    for end in (left, right):
        end.settimeout(PATIENCE)
    relay = Relay(ours, also_ours)
    with left, right:
        yield relay, left, right
        relay.close()
        relay.close()
        assert not relay.alive
        assert ours.fileno() == also_ours.fileno() == -1


def receive(end: socket.socket) -> bytes:
    """All until the other side has nothing more to say."""
    return b"".join(iter(lambda: end.recv(65536), b""))


def test_both_ways_at_once_and_in_whole() -> None:
    there, back = random.Random(1).randbytes(5_000_000), random.Random(2).randbytes(3_000_000)
    with relayed() as (_relay, left, right):

        def say(end: socket.socket, data: bytes) -> None:
            end.sendall(data)
            end.shutdown(socket.SHUT_WR)

        speakers = [
            threading.Thread(target=say, args=(left, there)),
            threading.Thread(target=say, args=(right, back)),
        ]
        heard: list[bytes] = []
        listener = threading.Thread(target=lambda: heard.append(receive(right)))
        for thread in (*speakers, listener):
            thread.start()
        assert receive(left) == back
        for thread in (*speakers, listener):
            thread.join(PATIENCE)
        assert heard == [there]


def test_who_has_said_all_still_hears() -> None:
    with relayed() as (relay, left, right):
        left.sendall(b"last words")
        left.shutdown(socket.SHUT_WR)
        assert receive(right) == b"last words"
        assert relay.alive
        right.sendall(b"answer")
        right.close()
        assert receive(left) == b"answer"


def test_who_does_not_read_stops_the_other() -> None:
    with relayed() as (_relay, left, _right):
        left.settimeout(0.5)
        sent = 0
        with contextlib.suppress(TimeoutError):
            while sent < 64 * 2**20:
                sent += left.send(bytes(65536))
        assert sent < 8 * 2**20


def test_one_breaks() -> None:
    with relayed() as (_relay, left, right):
        left.close()
        assert receive(right) == b""


def test_closing_ends_both() -> None:
    with relayed() as (relay, left, right):
        relay.close()
        assert receive(left) == receive(right) == b""
