"""The conformance checks: ours passes them all, and each kind of wrong server is found out."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.plugin.usbip_conformance import test_usbip_conformance
from pytest_hil.usbip.conformance import CHECKS, Result, Runner
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.vendor import Loopback

__all__ = ["test_usbip_conformance"]

Address = tuple[str, int]
Serve = Callable[[socket.socket], None]

BY_ID = {check.id: check for check in CHECKS}

# Bytes of a connection until the first URB's reply: OP_REP_IMPORT is 8 + 312.
ATTACHED = 320


@pytest.fixture(scope="module")
def loopback() -> Iterator[Address]:
    with Exporter() as exporter:
        exporter.plug(Loopback())
        yield exporter.address


@pytest.fixture
def usbip_server(loopback: Address) -> tuple[str, int, str]:
    return (*loopback, "1-1")


def test_there_are_enough_and_each_says_where_its_rule_is_from() -> None:
    assert len(CHECKS) == len(BY_ID) >= 40
    assert all(check.title and check.source for check in CHECKS)


def test_nothing_is_left_out_with_our_loopback(loopback: Address) -> None:
    outcomes = list(Runner(loopback, step=20).run_all(CHECKS))
    assert [one.row() for one in outcomes if one.result is not Result.PASS] == []
    assert all(one.expected and one.seen for one in outcomes)


def test_another_device_has_no_place_for_checks_of_data() -> None:
    with Exporter() as exporter:
        exporter.plug(Keyboard())
        outcomes = list(Runner(exporter.address, step=20).run_all(CHECKS))
    by_id = {one.check.id: one for one in outcomes}
    assert [one.row() for one in outcomes if one.result is Result.FAIL] == []
    assert by_id["data-bulk"].result is Result.NOT_APPLICABLE
    assert "1209:0002 does not give back" in by_id["data-bulk"].reason
    assert by_id["unlink-in-time"].result is Result.PASS


def test_a_server_without_devices() -> None:
    with Exporter() as exporter:
        outcomes = {one.check.id: one for one in Runner(exporter.address).run_all(CHECKS)}
    assert outcomes["op-devlist-layout"].result is Result.PASS
    assert outcomes["urb-device"].reason == "the server exports no device"


# --- the suite for other projects ---

SUITE = {
    "conftest.py": """
import pytest
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.hid import Keyboard

pytest_plugins = ["pytest_hil.plugin.usbip_conformance"]

@pytest.fixture(scope="session")
def usbip_server():
    with Exporter() as exporter:
        exporter.plug(Keyboard())
        yield (*exporter.address, "1-1")
""",
    "test_it.py": "from pytest_hil.plugin.usbip_conformance import test_usbip_conformance\n",
}


def test_the_suite_in_another_project(tmp_path: Path) -> None:
    for name, text in SUITE.items():
        (tmp_path / name).write_text(text)
    words = ["-q", "-rA", "-p", "no:cacheprovider", "-k", "data-bulk-zero or op-devlist-version"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED test_it.py::test_usbip_conformance[op-devlist-version]" in done.stdout
    assert "1209:0002 does not give back what it gets" in done.stdout
    assert "1 passed, 1 skipped" in done.stdout


def test_the_suite_says_what_was_wrong(loopback: Address) -> None:
    wrong = r"(?s)version 1\.1\.1.*expected 01 11.*seen     0110.*rule     Documentation/usb"
    with Mangler(loopback, {1: 0x10}) as server, pytest.raises(pytest.fail.Exception, match=wrong):
        test_usbip_conformance(BY_ID["op-devlist-version"], (*server.address, "1-1"))


# --- servers that are no servers ---


class Server:
    """Listens, and serves each connection by a function in a thread of its own."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: Address = self._listening.getsockname()
        self.open: list[socket.socket] = []
        self.over = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _peer = self._listening.accept()
                self.open.append(sock)
                thread = threading.Thread(target=self._one, args=(sock,))
                self._threads.append(thread)
                thread.start()

    def _one(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            self._serve(sock)

    def stop_listening(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        self.over.set()
        self.stop_listening()
        for sock in self.open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()
        for sock in self.open:
            sock.close()


def silent(sock: socket.socket) -> None:
    while sock.recv(4096):
        pass


def garbage(sock: socket.socket) -> None:
    sock.sendall(b"\xa5\x5a\xff\x00" * 1024)
    silent(sock)


def closing(sock: socket.socket) -> None:
    sock.close()


def huge(sock: socket.socket) -> None:
    """A list of four thousand million devices, none of which comes."""
    sock.sendall(bytes.fromhex("0111000500000000ffffffff"))
    silent(sock)


@pytest.mark.parametrize("serve", [silent, garbage, closing, huge])
def test_no_server_at_all_ends_in_time_and_with_fails(serve: Serve) -> None:
    began = time.monotonic()
    with Server(serve) as server:
        outcomes = list(Runner(server.address, "1-1", step=0.2, total=10).run_all(CHECKS))
    assert time.monotonic() - began < 30
    assert len(outcomes) == len(CHECKS)
    kind = {one.check.id: one.result for one in outcomes}
    assert kind["op-devlist-layout"] is kind["urb-device"] is kind["hostile-pending"] is Result.FAIL
    assert Result.PASS not in {kind[name] for name in kind if name.startswith(("urb", "unlink"))}


def test_a_byte_at_a_time_is_no_answer_in_time() -> None:
    def trickle(sock: socket.socket) -> None:
        while not server.over.wait(0.1):
            sock.sendall(b"\x01")

    began = time.monotonic()
    with Server(trickle) as server:
        outcomes = list(Runner(server.address, "1-1", step=0.4, total=10).run_all(CHECKS))
    assert time.monotonic() - began < 30
    assert {one.result for one in outcomes} == {Result.FAIL}
    assert "then silence" in outcomes[0].seen
    assert outcomes[1].seen.startswith("not tried, as after op-devlist-version nobody is served")


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
    outcomes = list(Runner(address, "1-1").run_all(CHECKS))
    assert {one.result for one in outcomes} == {Result.FAIL}
    assert outcomes[0].seen == "Connection refused"


def test_the_whole_time_is_bounded() -> None:
    with Server(garbage) as server:
        runner = Runner(server.address, "1-1", step=5, total=0)
        outcome = runner.run(CHECKS[0])
    assert outcome.result is Result.FAIL
    assert "is up" in outcome.seen


# --- servers with one thing wrong ---


class Mangler(Server):
    """Passes all on to a good server, but for some bytes of what that answers.

    ``patch``: the offset in all that one connection brings, and the byte that is put there.
    """

    def __init__(self, real: Address, patch: dict[int, int], more: bytes = b"") -> None:
        self._real = real
        self._patch = patch
        self._more = more
        super().__init__(self._relay)

    def _relay(self, sock: socket.socket) -> None:
        with socket.create_connection(self._real) as real:
            back = threading.Thread(target=self._back, args=(real, sock))
            back.start()
            with contextlib.suppress(OSError):
                while data := sock.recv(65536):
                    self.asked(data)
                    real.sendall(data)
            with contextlib.suppress(OSError):
                real.shutdown(socket.SHUT_WR)
            back.join(10)

    def asked(self, data: bytes) -> None:
        """A client sent this."""

    def _back(self, real: socket.socket, sock: socket.socket) -> None:
        at = 0
        with contextlib.suppress(OSError):
            while data := bytearray(real.recv(65536)):
                for offset, value in self._patch.items():
                    if at <= offset < at + len(data):
                        data[offset - at] = value
                at += len(data)
                sock.sendall(data)
            sock.sendall(self._more)
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def configured(loopback: Address) -> int:
    """The offset of the first reply after GET_DESCRIPTOR(configuration), twice, and SET."""
    with Importer(loopback, "1-1") as device:
        total = device.control(0x80, 6, 0x0200, data=4096).actual
    return ATTACHED + (48 + 9) + (48 + total) + 48


@pytest.mark.parametrize(
    ("name", "patch"),
    [
        ("op-devlist-version", {1: 0x10}),
        ("op-devlist-code", {3: 0x03}),
        ("op-devlist-status", {7: 1}),
        ("op-devlist-text", {12 + 255: 0x41}),
        ("op-devlist-busid", {12 + 256: 0}),
        ("op-devlist-speed", {12 + 256 + 32 + 11: 99}),
        ("op-devlist-interfaces", {12 + 312 + 3: 1}),
        ("op-import-header", {1: 0}),
        ("op-import-busid", {8 + 256: 0x39}),
        ("op-import-consistent", {8 + 256 + 32 + 13: 0x77}),
        ("urb-device", {ATTACHED + 48 + 8: 0x77}),
        ("urb-header", {ATTACHED + 11: 1}),
        ("urb-padding", {ATTACHED + 47: 1}),
        ("urb-errors", {ATTACHED + 39: 1}),
        ("urb-seqnum", {ATTACHED + 7: 9}),
        ("urb-short", {ATTACHED + 27: 7}),
        ("urb-stall", {ATTACHED + 23: 0x99}),
        ("unlink-unknown", {ATTACHED + 20: 0xFF}),
        ("unlink-too-late", {ATTACHED + 48 + 18 + 23: 1}),
    ],
)
def test_one_wrong_byte_is_seen(loopback: Address, name: str, patch: dict[int, int]) -> None:
    with Mangler(loopback, patch) as server:
        outcome = Runner(server.address, "1-1", step=2).run(BY_ID[name])
    assert outcome.result is Result.FAIL, outcome.row()
    assert outcome.expected
    assert outcome.seen


@pytest.mark.parametrize(
    ("name", "offset"),
    [
        ("unlink-in-time", 23),
        ("unlink-header", 47),
        ("urb-set-configuration", 48),
        ("urb-out-data", 27),
        ("data-bulk", 48 + 48),
    ],
)
def test_one_wrong_byte_later_is_seen(
    loopback: Address, configured: int, name: str, offset: int
) -> None:
    with Mangler(loopback, {configured + offset: 0x77}) as server:
        outcome = Runner(server.address, "1-1", step=2).run(BY_ID[name])
    assert outcome.result is Result.FAIL, outcome.row()


def test_bytes_behind_the_list_are_seen(loopback: Address) -> None:
    with Mangler(loopback, {}, more=b"\0\0") as server:
        outcome = Runner(server.address, "1-1", step=5).run(BY_ID["op-devlist-end"])
    assert (outcome.result, outcome.seen) == (Result.FAIL, "0000")


def test_a_server_that_dies_of_nonsense(loopback: Address) -> None:
    class Fragile(Mangler):
        def asked(self, data: bytes) -> None:
            if b"\xff" * 8 in data:
                self.stop_listening()

    with Fragile(loopback, {}) as server:
        runner = Runner(server.address, "1-1", step=2)
        first, second = runner.run(BY_ID["hostile-junk"]), runner.run(BY_ID["urb-device"])
    assert first.result is second.result is Result.FAIL
    assert second.seen.startswith("not tried, as after hostile-junk nobody is served")
