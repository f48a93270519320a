"""Consoles behind a real TCP server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest

from pytest_hil.board.console.open import open_console
from pytest_hil.board.console.tcp import TcpConsole, TcpOptions, unreachable
from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, ConfigError

MiB = 2**20


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


def opened(server: socket.socket) -> Console:
    return Console(TcpConsole(TcpOptions(server.getsockname())).open(), name="dut", grace=0.1)


def test_every_byte_passes_both_ways(server: socket.socket) -> None:
    every = bytes(range(256))
    with opened(server) as console, server.accept()[0] as target:
        target.sendall(every + b"end")
        console.expect("end", timeout=10)
        assert console.raw_after(0)[1] == every + b"end"
        console.send(every)
        assert target.recv(256, socket.MSG_WAITALL) == every


def test_50_mb(server: socket.socket, flooded: Callable[[Console, int, int], None]) -> None:
    with opened(server) as console, server.accept()[0] as target:
        flooded(console, target.fileno(), 50 * MiB)


def test_a_pulled_cable_is_noticed(server: socket.socket) -> None:
    transport = TcpConsole(TcpOptions(server.getsockname())).open()
    with socket.socket(fileno=socket.dup(transport.fileno())) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
    transport.close()
    transport.close()


def test_it_ends_with_its_server(server: socket.socket) -> None:
    with opened(server) as console:
        with server.accept()[0] as target:
            target.sendall(b"last words")
        console.expect("last words", timeout=10)
        assert console.wait_closed(10)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(ChannelLost, match=f"127.0.0.1:{address[1]} .*refused") as caught:
        TcpConsole(TcpOptions(address)).open()
    assert "ser2net" in caught.value.mend


def test_nobody_answers() -> None:
    """A server whose queue is full lets the next one wait, as a firewall does."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=0) as server,
        socket.create_connection(server.getsockname()),
        pytest.raises(ChannelLost, match="nobody answers"),
    ):
        TcpConsole(TcpOptions(server.getsockname(), connect_timeout=0.2)).open()


def test_a_name_that_no_host_can_have() -> None:
    with pytest.raises(ChannelLost, match="no host has such a name"):
        TcpConsole(TcpOptions(("a" * 64 + ".lab", 4001))).open()


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (socket.gaierror(-2, "Name or service not known"), "lab1:4001 .* has no address"),
        (OSError(113, "No route to host"), "no way to that host"),
        (OSError(101, "Network is unreachable"), "no way to that host"),
        (OSError(5, "Something else"), "Something else"),
    ],
)
def test_what_an_error_means(error: OSError, said: str) -> None:
    with pytest.raises(ChannelLost, match=said):
        raise unreachable("lab1", 4001, error)


@pytest.mark.parametrize("address", ["lab1", "lab1:0", "lab1:ssh", ":4001", 4001])
def test_wrong_addresses(section: Callable[..., Section], address: object) -> None:
    with pytest.raises(ConfigError, match=r"\[target.dut.console\] address"):
        section("tcp", address=address).options(TcpOptions)


def test_open_console_says_whose_it_is(section: Callable[..., Section]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        number = server.getsockname()[1]
    with pytest.raises(ChannelLost, match=r"\[target.dut.console\]: the console at 127") as caught:
        open_console(section("tcp", address=f"127.0.0.1:{number}"), name="dut")
    assert caught.value.mend


def test_open_console(server: socket.socket, section: Callable[..., Section]) -> None:
    address = f"127.0.0.1:{server.getsockname()[1]}"
    table = section("tcp", address=address)
    with open_console(table, name="dut") as console, server.accept()[0] as target:
        target.sendall(b"login: ")
        console.expect("login:", timeout=10)


def test_open_console_with_a_wrong_key(section: Callable[..., Section]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'address'"):
        open_console(section("tcp", adress="lab1:4001", address="lab1:1"), name="dut")
    with pytest.raises(ConfigError, match="patience"):
        open_console(section("tcp", address="lab1:1", patience="long"), name="dut")
    with pytest.raises(ConfigError, match="did you mean 'tcp'"):
        open_console(section("tpc", address="lab1:1"), name="dut")
