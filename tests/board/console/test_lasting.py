"""Lines that are lost and come back, or do not."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.board.console.lasting import LastingTransport
from pytest_hil.board.console.open import open_console
from pytest_hil.board.console.serial import SerialConsole, SerialOptions
from pytest_hil.board.console.tcp import TcpConsole, TcpOptions
from pytest_hil.board.console.unix import UnixConsole, UnixOptions
from pytest_hil.board.console.watch import Watch
from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport, Transport
from pytest_hil.errors import ChannelLost, InfrastructureError

if TYPE_CHECKING:
    from tests.board.console.conftest import Board

    Boards = Callable[[], Board]

pytest.importorskip("serial")
MiB = 2**20
BACK = r"\[pytest-hil: the console was lost; it is back after (\d+\.\d) s\]\n"


class Adapter:
    """A port by its name by id: a link, in a directory that is there with it only, as udev does."""

    def __init__(self, directory: Path, boards: Boards) -> None:
        self.path = directory / "serial" / "by-id" / "usb-X"
        self._boards = boards
        self.board = self.plug()

    def plug(self) -> Board:
        self.board = self._boards()
        self.board.raw()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.symlink_to(self.board.port)
        return self.board

    def pull(self) -> None:
        self.path.unlink()
        self.path.parent.rmdir()
        self.path.parent.parent.rmdir()
        self.board.vanish()


@pytest.fixture
def adapter(tmp_path: Path, boards: Boards) -> Adapter:
    return Adapter(tmp_path, boards)


class Counted:
    """Opens a serial port, and knows how often that was tried."""

    def __init__(self, path: Path) -> None:
        self.tries = 0
        self.tried = threading.Semaphore(0)
        self._driver = SerialConsole(SerialOptions(str(path)))

    def __call__(self) -> Transport:
        self.tries += 1
        self.tried.release()
        return self._driver.open()

    def await_tries(self, number: int) -> None:
        """Wait for so many more."""
        for _ in range(number):
            assert self.tried.acquire(timeout=10)


@contextmanager
def lasting(path: Path, patience: float = 20.0) -> Iterator[tuple[Console, Counted]]:
    opening = Counted(path)
    transport = LastingTransport(opening, "dut", patience, watch=path)
    opening.await_tries(1)
    with Console(transport, name="dut", grace=0.1) as console:
        yield console, opening


def test_it_comes_back(adapter: Adapter, tmp_path: Path) -> None:
    with lasting(adapter.path) as (console, opening):
        console.record(tmp_path / "out")
        adapter.board.says(b"before")
        console.expect("before", timeout=10)
        adapter.pull()
        opening.await_tries(1)
        adapter.plug().says(b"after\n")
        match = console.expect(BACK, timeout=10)
        assert match.before == "\n"
        assert match.groups[0] is not None
        assert 0 <= float(match.groups[0]) < 10
        assert console.expect("after", timeout=10).before == ""
        console.send("hello")
        assert adapter.board.hears(5) == b"hello"
        said = console.raw_after(0)[1]
        assert said.startswith(b"before\r\n[pytest-hil: ")
        assert said.endswith(b" s]\r\nafter\n")
    assert (tmp_path / "out/console.log").read_bytes() == said


def test_it_is_not_polled_for(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, opening):
        adapter.pull()
        opening.await_tries(1)
        # What happens beside it is no reason to try.
        (adapter.path.parents[2] / "other").touch()
        assert not opening.tried.acquire(timeout=0.7)
        assert opening.tries == 2
        began = time.monotonic()
        adapter.plug()
        console.expect(BACK, timeout=10)
        assert time.monotonic() - began < 0.7, "the event was not seen"


def test_again_and_again(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, _):
        for number in range(6):
            adapter.pull()
            adapter.plug().says(b"boot %d\n" % number)
            console.expect(f"boot {number}\n", timeout=10)
            console.send("x")
            assert adapter.board.hears(1) == b"x"
        assert console.text().count("it is back after") == 6


def test_it_does_not_come_back(adapter: Adapter) -> None:
    with lasting(adapter.path, patience=0.3) as (console, _):
        adapter.board.says(b"last words")
        console.expect("last words", timeout=10)
        adapter.pull()
        began = time.monotonic()
        with pytest.raises(ChannelLost) as caught:
            console.expect("login:", timeout=10)
        assert time.monotonic() - began < 5
        said = str(caught.value)
        assert "the console of dut broke: the line was lost (" in said
        assert "did not come back within 0.3 s" in said
        assert f"there is no serial port {adapter.path}" in said
        with pytest.raises(ChannelLost, match="did not come back"):
            console.send("x")


def test_without_patience(adapter: Adapter) -> None:
    with lasting(adapter.path, patience=0) as (console, opening):
        adapter.board.vanish()
        with pytest.raises(ChannelLost, match=r"the line was lost \("):
            console.expect("login:", timeout=10)
        assert opening.tries == 1


def test_the_first_time_it_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(ChannelLost, match="there is no serial port"):
        LastingTransport(Counted(tmp_path / "tty"), "dut", 20.0)


def test_what_is_sent_meanwhile_waits_and_is_sent_once(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, opening), ThreadPoolExecutor(1) as pool:
        adapter.pull()
        opening.await_tries(1)
        sent = pool.submit(console.send, "printenv\n", timeout=15)
        assert not sent.done()
        adapter.plug()
        sent.result()
        assert adapter.board.hears(9) == b"printenv\n"
        assert not adapter.board.has_heard(0.05)


def test_sending_gives_up_in_its_own_time(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, opening):
        adapter.pull()
        opening.await_tries(1)
        with pytest.raises(ChannelLost, match="takes no input: 0 of 1 bytes"):
            console.send("x", timeout=0.1)


def test_closing_during_an_outage(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, opening):
        adapter.pull()
        opening.await_tries(1)
        began = time.monotonic()
        console.close()
        assert time.monotonic() - began < 2


def test_closing_while_a_try_takes_its_time(board: Board) -> None:
    """A connection that nobody answers cannot be interrupted; what it still opens is closed."""
    trying, go_on = threading.Event(), threading.Event()
    driver = SerialConsole(SerialOptions(board.port))
    lines: list[Transport] = []

    def slowly() -> Transport:
        if lines:
            trying.set()
            assert go_on.wait(20)
        lines.append(driver.open())
        return lines[-1]

    ours, theirs = socket.socketpair()

    def first() -> Transport:
        if lines:
            return slowly()
        lines.append(SocketTransport(ours))
        return lines[-1]

    transport = LastingTransport(first, "dut", 20.0)
    with Console(transport, name="dut"):
        theirs.close()
        assert trying.wait(10)
    go_on.set()
    for thread in threading.enumerate():
        if thread.name == "hil-lasting-dut":
            thread.join(10)
    assert len(lines) == 2
    driver.open().close()  # not in use by what came too late


def test_a_port_that_somebody_else_takes_meanwhile(adapter: Adapter) -> None:
    """ModemManager looks at each new port for a while."""
    with lasting(adapter.path) as (console, opening):
        adapter.pull()
        opening.await_tries(1)
        new = adapter._boards()
        taken = SerialConsole(SerialOptions(new.port)).open()
        adapter.path.parent.mkdir(parents=True)
        adapter.path.symlink_to(new.port)
        opening.await_tries(2)
        taken.close()
        console.expect(BACK, timeout=10)
        new.says(b"hello")
        console.expect("hello", timeout=10)


def test_50_mb_after_an_outage(
    adapter: Adapter, flooded: Callable[[Console, int, int], None]
) -> None:
    with lasting(adapter.path) as (console, _):
        adapter.pull()
        adapter.plug()
        console.expect(BACK, timeout=10)
        flooded(console, adapter.board.master, 50 * MiB)


def test_garbage_and_a_started_sequence_before_an_outage(adapter: Adapter) -> None:
    with lasting(adapter.path) as (console, opening):
        adapter.board.says(b"\xe2\x82\x1b]0;title that never ends")
        console._capture.changed.acquire()
        console._capture.changed.wait_for(lambda: console.mark().raw >= 25, 10)
        console._capture.changed.release()
        adapter.pull()
        opening.await_tries(1)
        adapter.plug()
        assert console.expect(BACK, timeout=10)


def test_a_reader_that_takes_one_byte_at_a_time(adapter: Adapter) -> None:
    """The note of the return is as long as it is, whatever is asked for."""
    opening = Counted(adapter.path)
    transport = LastingTransport(opening, "dut", 20.0, watch=adapter.path)
    opening.await_tries(1)
    adapter.pull()
    said = b""
    with pytest.raises(BlockingIOError):
        transport.read(1)
    adapter.plug()
    deadline = time.monotonic() + 10
    poll = select.poll()
    poll.register(transport.fileno(), select.POLLIN)
    while not said.endswith(b"$") and time.monotonic() < deadline:
        if said.endswith(b"]\r\n"):
            adapter.board.says(b"$")  # only now: nothing else may hasten the note
        assert poll.poll(10_000)
        try:
            said += transport.read(1)
        except BlockingIOError:
            pass
    transport.close()
    transport.close()
    assert said.startswith(b"\r\n[pytest-hil: ")
    assert said.endswith(b" s]\r\n$")


def test_a_write_that_finds_it_broken_loses_nothing_that_was_said() -> None:
    """What had come before is read first, then the note."""
    pairs = [socket.socketpair() for _ in range(2)]
    opens = iter(pairs)
    transport = LastingTransport(lambda: SocketTransport(next(opens)[0]), "dut", 20.0)
    theirs = pairs[0][1]
    theirs.sendall(b"last words")
    theirs.close()
    with pytest.raises(BlockingIOError):
        transport.write(memoryview(b"x"))
    with Console(transport, name="dut") as console:
        assert console.expect(BACK, timeout=10).before == "last words\n"
        console.send("y")
        assert pairs[1][1].recv(10) == b"y"
    pairs[1][1].close()


# --- servers ---


def test_a_tcp_server_that_is_started_again() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    address = server.getsockname()
    driver = TcpConsole(TcpOptions(address))
    with Console(LastingTransport(driver.open, "dut", 20.0), name="dut") as console:
        server.accept()[0].close()
        server.close()
        time.sleep(0.2)  # so that tries are refused
        with socket.create_server(address, reuse_port=False) as server:
            server.settimeout(10)
            with server.accept()[0] as target:
                target.sendall(b"hello again")
                console.expect(BACK, timeout=10)
                console.expect("hello again", timeout=10)


def test_a_server_that_only_answers_and_hangs_up() -> None:
    """ser2net does that when somebody else has the port: it is not hammered, nor for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = 0

        def refuse() -> None:
            nonlocal taken
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                taken += 1
                with client:
                    client.sendall(b"Port already in use\r\n")

        thread = threading.Thread(target=refuse)
        thread.start()
        driver = TcpConsole(TcpOptions(server.getsockname()))
        transport = LastingTransport(driver.open, "dut", 1.0)
        with Console(transport, name="dut", grace=0.1) as console:
            with pytest.raises(ChannelLost, match="lost again and again"):
                console.expect("login:", timeout=15)
            assert "Port already in use" in console.text()
        assert 2 <= taken < 12
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_unix_socket_that_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "run" / "uart.sock"
    path.parent.mkdir()

    def listen() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        return server

    driver = UnixConsole(UnixOptions(path))
    server = listen()
    transport = LastingTransport(driver.open, "dut", 20.0, watch=driver.watch)
    with Console(transport, name="dut") as console:
        path.unlink()
        path.parent.rmdir()
        server.accept()[0].close()
        server.close()
        path.parent.mkdir()
        with listen() as server, server.accept()[0] as target:
            console.expect(BACK, timeout=10)
            target.sendall(b"hello")
            console.expect("hello", timeout=10)


def test_open_console_lasts(adapter: Adapter, section: Callable[..., Section]) -> None:
    with open_console(section("serial", port=str(adapter.path)), name="dut") as console:
        adapter.pull()
        adapter.plug().says(b"hello")
        console.expect(BACK, timeout=10)
        console.expect("hello", timeout=10)


def test_open_console_with_little_patience(
    adapter: Adapter, section: Callable[..., Section]
) -> None:
    table = section("serial", port=str(adapter.path), patience=0.1)
    with open_console(table, name="dut") as console:
        adapter.pull()
        with pytest.raises(InfrastructureError, match=r"within 0.1 s"):
            console.expect("login:", timeout=10)


# --- the watch ---


def test_a_name_is_watched(tmp_path: Path) -> None:
    with Watch(tmp_path / "tty") as watch:
        watch.arm()
        assert watch.missing()
        (tmp_path / "other").touch()
        assert not watch.wait(0.05)
        (tmp_path / "tty").touch()
        assert watch.wait(10)
        assert not watch.missing()
        (tmp_path / "tty").chmod(0o600)
        assert watch.wait(10)


def test_a_pattern_is_watched(tmp_path: Path) -> None:
    with Watch(tmp_path / "tty*") as watch:
        watch.arm()
        (tmp_path / "null").touch()
        assert not watch.wait(0.05)
        (tmp_path / "ttyUSB3").touch()
        assert watch.wait(10)


def test_directories_are_watched_as_they_come(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c"
    with Watch(path) as watch:
        for directory in (tmp_path / "a", tmp_path / "a/b"):
            watch.arm()
            directory.mkdir()
            assert watch.wait(10)
        watch.arm()
        path.touch()
        assert watch.wait(10)


def test_what_a_link_points_at_is_watched(tmp_path: Path) -> None:
    (tmp_path / "dev").mkdir()
    link = tmp_path / "port"
    link.symlink_to("dev/ttyUSB0")
    with Watch(link) as watch:
        watch.arm()
        assert watch.missing()
        (tmp_path / "dev/ttyUSB0").touch()
        assert watch.wait(10)
        assert not watch.missing()
