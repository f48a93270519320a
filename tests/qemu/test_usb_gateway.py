"""A connection goes from a program that QEMU starts to the gateway, by the real program."""

from __future__ import annotations

import contextlib
import os
import queue
import shlex
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from pytest_hil.errors import InfrastructureError
from pytest_hil.qemu import usb_gateway, usb_handover
from pytest_hil.qemu.usb_gateway import Gateway

PATIENCE = 30.0

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
NOBODY = 65534

Arrivals = queue.SimpleQueue[socket.socket]


@contextlib.contextmanager
def loopback_pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of a TCP connection, as libslirp makes them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        other, _ = server.accept()
    with one, other:
        yield one, other


def hand_over(name: str, connection: socket.socket, *before: str) -> int:
    """What QEMU does for a connection; the program's exit code."""
    argv = [*before, *shlex.split(usb_gateway.command(name))]
    return subprocess.run(argv, stdin=connection.fileno(), check=False, timeout=PATIENCE).returncode


def test_a_connection_arrives() -> None:
    name, arrived = usb_gateway.new_name(), Arrivals()
    with Gateway(name, arrived.put), loopback_pair() as (a, b):
        for _ in range(2):
            assert hand_over(name, b) == 0
            with arrived.get(timeout=PATIENCE) as got:
                assert not os.get_inheritable(got.fileno())
                got.sendall(b"hello")
                assert a.recv(5) == b"hello"
                a.sendall(b"here")
                assert got.recv(10) == b"here"
                a.sendall(b"again")
                buffer = bytearray(10)
                assert got.recv_into(buffer) == 5


def test_nobody_listens() -> None:
    with loopback_pair() as (_a, b):
        assert hand_over(usb_gateway.new_name(), b) == 1


def test_a_closed_gateway_frees_its_name() -> None:
    name = usb_gateway.new_name()
    gateway = Gateway(name, socket.socket.close)
    with pytest.raises(InfrastructureError, match="cannot listen: Address already in use"):
        Gateway(name, socket.socket.close)
    gateway.close()
    gateway.close()
    Gateway(name, socket.socket.close).close()


def test_what_is_no_handover_is_dropped() -> None:
    name, arrived = usb_gateway.new_name(), Arrivals()
    with Gateway(name, arrived.put), loopback_pair() as (_a, b):
        for message in (b"+", b""):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect("\0" + name)
                if message:
                    peer.send(message)
                else:
                    peer.shutdown(socket.SHUT_WR)
                peer.settimeout(PATIENCE)
                with contextlib.suppress(ConnectionResetError):
                    assert peer.recv(1) == b""
        # It goes on.
        assert hand_over(name, b) == 0
        arrived.get(timeout=PATIENCE).close()
        assert arrived.empty()


def as_nobody(act: Callable[[], int]) -> int:
    """The pid of a child that does it as another user, and ends with what it returns."""
    pid = os.fork()
    if pid == 0:
        code = 9
        with contextlib.suppress(OSError):
            os.setuid(NOBODY)
            code = act()
        os._exit(code)
    return pid


def exit_code(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@as_root
def test_another_users_program_gets_nothing_in() -> None:
    name, arrived = usb_gateway.new_name(), Arrivals()

    def intrude() -> int:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
            peer.connect("\0" + name)
            peer.settimeout(PATIENCE)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(peer, [b"3240"], [0])
                return len(peer.recv(1))
            return 0

    with Gateway(name, arrived.put), loopback_pair() as (_a, b):
        assert exit_code(as_nobody(intrude)) == 0
        assert hand_over(name, b) == 0
        arrived.get(timeout=PATIENCE).close()
        assert arrived.empty()


@as_root
def test_another_users_gateway_gets_nothing_out() -> None:
    name = usb_gateway.new_name()

    def take() -> int:
        """It has taken the name before us, and waits for a guest's connection."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as thief:
            thief.bind("\0" + name)
            thief.listen()
            thief.settimeout(PATIENCE)
            peer, _ = thief.accept()
            peer.settimeout(PATIENCE)
            _message, fds, _flags, _address = socket.recv_fds(peer, 16, 1)
            return len(fds)

    pid = as_nobody(take)
    with loopback_pair() as (_a, b):
        while "@" + name not in read("/proc/net/unix"):
            assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert hand_over(name, b) == 1
    assert exit_code(pid) == 0


def read(path: str) -> str:
    with open(path) as file:  # noqa: PTH123 - nothing but a name in /proc
        return file.read()


def test_the_program_needs_nothing_but_python() -> None:
    """It starts in a guest's time: no site-packages, none of our package."""
    argv = shlex.split(usb_gateway.command("name"))
    assert argv[:3] == [sys.executable, "-I", "-S"]
    assert argv[3] == usb_handover.__file__
    assert "pytest_hil" not in "".join(
        line for line in read(argv[3]).splitlines() if "import" in line
    )


def test_names_do_not_repeat() -> None:
    assert len({usb_gateway.new_name() for _ in range(100)}) == 100
