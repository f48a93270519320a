"""The port by which a board comes to its USB devices, met by real connections."""

from __future__ import annotations

import queue
import socket

import pytest

from pytest_hil.board.usb import BoardDoor
from pytest_hil.config.usb import BoardUsb
from pytest_hil.errors import HostLacks, InfrastructureError
from pytest_hil.rig.outside import HeldPort

PATIENCE = 30.0
LOOPBACK = BoardUsb("10.1.2.3", "127.0.0.1", 0, ("127.0.0.0/8",))

Arrivals = queue.SimpleQueue[tuple[socket.socket, str]]


def come(door: BoardDoor) -> socket.socket:
    return socket.create_connection(("127.0.0.1", door.port), timeout=PATIENCE)


def no_one(_connection: socket.socket, peer: str) -> None:
    raise AssertionError(peer)


def test_a_board_comes() -> None:
    arrived = Arrivals()
    door = BoardDoor("pi", LOOPBACK, lambda connection, peer: arrived.put((connection, peer)))
    assert door.host == "10.1.2.3"
    assert "it did not come to 10.1.2.3, port " in door.why_not()
    with come(door) as board:
        connection, peer = arrived.get(timeout=PATIENCE)
        door.close()
        door.close()
        with connection:
            # What came through it stays, and is asked now and then whether it is still there.
            assert peer == "127.0.0.1"
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            connection.sendall(b"hello")
            assert board.recv(5) == b"hello"
    assert door.why_not() == ""
    with pytest.raises(ConnectionRefusedError):
        come(door)


def test_others_are_sent_away() -> None:
    arrived = Arrivals()
    own = BoardUsb("10.1.2.3", "0.0.0.0", 0, ("10.9.0.0/16", "10.1.2.9/32"))
    door = BoardDoor("pi", own, lambda *come: arrived.put(come))
    with come(door) as board:
        assert board.recv(1) == b""
    assert door.why_not() == (
        "127.0.0.1 came and was refused: [target.pi.usb] in boards.toml has "
        "allow = [10.9.0.0/16, 10.1.2.9/32]"
    )
    assert arrived.empty()
    door.close()


def test_who_cannot_be_served_is_not_kept_waiting() -> None:
    def refuse(_connection: socket.socket, _peer: str) -> None:
        raise InfrastructureError("the exporter is closed")

    door = BoardDoor("pi", LOOPBACK, refuse)
    for _ in range(2):
        with come(door) as board:
            assert board.recv(1) == b""
    door.close()


def test_a_port_of_its_own() -> None:
    held = HeldPort()
    own = BoardUsb("10.1.2.3", "127.0.0.1", held.number, ("*",))
    with held.listen(), pytest.raises(HostLacks) as taken:
        BoardDoor("pi", own, no_one)
    assert str(taken.value).startswith(
        f"[target.pi.usb] in boards.toml: nobody can listen on 127.0.0.1, port {held.number}: Addr"
    )
    assert "a port of its own" in taken.value.mend
    # It is free at once, also while what came through it lasts.
    arrived = Arrivals()
    for _ in range(2):
        door = BoardDoor("pi", own, lambda *come: arrived.put(come))
        assert door.port == held.number
        with come(door):
            arrived.get(timeout=PATIENCE)[0].close()
        door.close()
    held.close()


def test_an_address_that_this_host_does_not_have() -> None:
    with pytest.raises(HostLacks, match=r"192\.0\.2\.1, port 0: Cannot assign") as wrong:
        BoardDoor("pi", BoardUsb("192.0.2.1", "192.0.2.1", 0, ("*",)), no_one)
    assert "this host has no address 192.0.2.1" in wrong.value.mend


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this host has no IPv6")
def test_all_addresses_of_both_families() -> None:
    arrived = Arrivals()
    door = BoardDoor(
        "pi", BoardUsb("fd00::1", "::", 0, ("127.0.0.1/32",)), lambda *come: arrived.put(come)
    )
    with come(door):
        arrived.get(timeout=PATIENCE)[0].close()
    door.close()
