"""User networking: nothing in or out unless it was asked for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from pytest_hil.bench import Bench
from pytest_hil.errors import Unsupported
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine


@pytest.fixture
def host_port() -> Iterator[int]:
    """A port of the host that says "hello" to whoever connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer:
                    peer.sendall(b"hello\n")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def reach(guest: Guest, port: int) -> str:
    """What the guest hears from a port of the host."""
    return guest.run(f"nc -w 2 10.0.2.2 {port} < /dev/null", check=False).stdout


def test_the_host_is_out_of_reach(guest: Guest, host_port: int) -> None:
    assert reach(guest, host_port) == ""


def test_an_open_network_reaches_the_host(bench: Bench, host_port: int) -> None:
    guest = bench.open(bench.target("qemu", network="open"))
    try:
        assert reach(guest, host_port) == "hello\n"
    finally:
        guest.close()


def test_a_forward_is_on_a_port_that_the_kernel_picked(bench: Bench) -> None:
    target = bench.target("qemu", forwards=[7000])
    one, other = bench.open(target), bench.open(target)
    try:
        assert one.forward(7000) != other.forward(7000)
        for number, guest in enumerate((one, other)):
            guest.run(f"(echo machine {number} | nc -l -p 7000) >/dev/null 2>&1 &")
            guest.run("until netstat -tln | grep -q :7000; do usleep 10000; done", timeout=10)
            with socket.create_connection(("127.0.0.1", guest.forward(7000)), 5) as peer:
                assert peer.makefile().readline() == f"machine {number}\n"
        with pytest.raises(Unsupported, match=r"forwards = \[22\]"):
            one.forward(22)
    finally:
        one.close()
        other.close()


def test_no_network_at_all(bench: Bench) -> None:
    guest = bench.open(bench.target("qemu", network="none"))
    try:
        assert "network" not in guest.features
        assert guest.run("ls /sys/class/net").stdout.split() == ["lo"]
    finally:
        guest.close()
