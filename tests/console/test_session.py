"""A console over a real socket: reading, sending, marks, subscribers, ends."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, ConsoleClosed, ExpectTimeout, MachineError

if TYPE_CHECKING:
    from tests.console.conftest import Connect, Line


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def test_it_reads_before_anybody_asks(line: Line) -> None:
    line.says(b"from the first byte\r\n")
    assert line.console.text() == "from the first byte\n"
    assert line.console.text(raw=True) == "from the first byte\r\n"


def test_expect_waits_for_what_is_said_later(line: Line) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(line.console.expect, "login:", timeout=10)
        line.says(b"log")
        line.says(b"in: ")
        assert waiting.result().text == "login:"


def test_send_and_sendline(line: Line) -> None:
    line.console.send("é")
    line.console.send(b"\x03\xff")
    line.console.sendline("root")
    line.console.sendline()
    expected = "é".encode() + b"\x03\xffroot\n\n"
    got = b""
    while len(got) < len(expected):
        got += line.target.recv(100)
    assert got == expected


def test_what_a_terminal_answers_to_who_asks_for_its_cursor(line: Line) -> None:
    assert line.console.cursor_report == b""
    line.says(b"\x1b[6n")
    assert line.console.cursor_report == b"\x1b[1;1R"
    line.says(b"\r\n# \x1b[6")
    assert line.console.cursor_report == b""
    line.says(b"n")
    assert line.console.cursor_report == b"\x1b[1;1R"
    line.says(b"x")
    assert line.console.cursor_report == b""


def test_marks_and_tail(line: Line) -> None:
    line.says(b"one\ntwo\n")
    mark = line.console.mark()
    assert line.console.since(mark) == ""
    line.says(b"\x1b[1mthree\x1b[0m\nfour")
    assert line.console.since(mark) == "three\nfour"
    assert line.console.since(mark, raw=True) == "\x1b[1mthree\x1b[0m\nfour"
    assert line.console.tail(2) == "three\nfour"
    assert line.console.tail() == "one\ntwo\nthree\nfour"


def test_history_is_text_but_not_expected(connect: Connect) -> None:
    line = connect(history=b"login: inherited\r\n")
    assert line.console.text() == "login: inherited\n"
    with pytest.raises(ExpectTimeout):
        line.console.expect("login:", timeout=0.01)
    line.says(b"login: live")
    assert line.console.expect("login: .*").text == "login: live"


def test_memory_is_bounded_and_says_so(connect: Connect) -> None:
    line = connect(keep=8192)
    mark = line.console.mark()
    for number in range(1000):
        line.target.sendall(b"%063d\n" % number)
    line.console.expect("0999\n", timeout=10)
    text = line.console.text()
    assert text == line.console.since(mark)
    assert len(text) < 2 * 8192
    assert text.startswith("[pytest-hil: ")
    assert text.endswith("0999\n")


def test_expect_misses_nothing_while_more_is_printed_than_is_kept(connect: Connect) -> None:
    line = connect(keep=16 * 1024)

    def say() -> None:
        for number in range(20_000):
            line.target.sendall(b"noise %d\n" % number if number != 9_000 else b"needle\n")

    speaker = threading.Thread(target=say)
    speaker.start()
    assert line.console.expect("needle", timeout=20).text == "needle"
    line.console.expect("noise 19999", timeout=20)
    speaker.join()


def test_a_target_that_reads_nothing_does_not_block_for_ever(line: Line) -> None:
    with pytest.raises(ChannelLost, match=r"takes no input: \d+ of 10000000 bytes were sent"):
        line.console.send(b"x" * 10_000_000, timeout=0.05)


def test_sending_while_the_target_floods(line: Line) -> None:
    """Both directions are full at once: nobody waits for the other."""
    size = 4_000_000

    def target() -> None:
        with ThreadPoolExecutor(1) as pool:
            said = pool.submit(line.target.sendall, b"y" * size + b"\nend\n")
            got = 0
            while got < size:
                got += len(line.target.recv(65536))
            said.result()

    with ThreadPoolExecutor(1) as pool:
        played = pool.submit(target)
        line.console.send(b"x" * size)
        line.console.expect("end\n")
        played.result()


def test_the_end_of_the_stream(line: Line) -> None:
    line.says(b"last words\n")
    line.target.close()
    assert line.console.wait_closed(10)
    assert line.console.closed
    with pytest.raises(ConsoleClosed, match="last words"):
        line.console.expect("login:")
    with pytest.raises(ChannelLost):
        line.console.send("x")
    assert line.console.text() == "last words\n"


def test_an_open_console_is_not_closed(line: Line) -> None:
    assert not line.console.closed
    assert not line.console.wait_closed(0.01)


def test_the_owners_error_reaches_who_waits_and_who_comes_later(line: Line) -> None:
    error = MachineError("the machine died")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(line.console.expect, "login:", timeout=10)
        line.console.fail(error)
        with pytest.raises(MachineError) as caught:
            waiting.result()
    assert caught.value is error
    with pytest.raises(MachineError):
        line.console.expect("login:")
    with pytest.raises(MachineError):
        line.console.send("x")


def test_the_owners_error_is_not_put_off_by_a_target_that_never_stops(connect: Connect) -> None:
    line = connect()

    def flood() -> None:
        while True:
            line.target.sendall(b"x" * 65536)

    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        line.console.expect("x", timeout=10)
        line.console.fail(MachineError("the lease was lost"))
        with pytest.raises(MachineError, match="lease"):
            line.console.expect("never", timeout=None)
        line.console.close()
        with pytest.raises(OSError):
            flooding.result(10)


def test_close_frees_everything_and_wakes_who_waits(connect: Connect) -> None:
    before = descriptors(), threading.active_count()
    line = connect()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(line.console.expect, "never", timeout=30)
        began = time.monotonic()
        line.console.close()
        with pytest.raises(ConsoleClosed):
            waiting.result(10)
        assert time.monotonic() - began < 5
    line.console.close()
    line.target.close()
    with pytest.raises(ChannelLost, match="closed"):
        line.console.send("x")
    assert (descriptors(), threading.active_count()) == before


def test_close_reads_what_was_said_before(connect: Connect, tmp_path: Path) -> None:
    line = connect(keep=4096)
    line.console.record(tmp_path)
    line.target.sendall(b"x" * 100_000 + b"last words")
    line.console.close()
    assert line.console.text().endswith("last words")
    assert (tmp_path / "console.log").stat().st_size == 100_010


def test_close_does_not_wait_for_a_target_that_never_stops(connect: Connect) -> None:
    line = connect()

    def flood() -> None:
        while True:
            line.target.sendall(b"x" * 65536)

    with ThreadPoolExecutor(1) as pool:
        flooding = pool.submit(flood)
        line.console.expect("x", timeout=10)
        began = time.monotonic()
        line.console.close()
        assert time.monotonic() - began < 5
        with pytest.raises(OSError):
            flooding.result(10)


def test_close_ends_a_send_that_is_stuck(line: Line) -> None:
    with ThreadPoolExecutor(1) as pool:
        stuck = pool.submit(line.console.send, b"x" * 10_000_000, timeout=30)
        line.target.recv(1)
        line.console.close()
        with pytest.raises(ChannelLost, match="closed"):
            stuck.result(10)


def test_subscribers_get_all_bytes_and_the_end(line: Line) -> None:
    line.says(b"before ")
    got: list[bytes] = []
    ended = threading.Event()
    line.console.subscribe(lambda data: got.append(data) if data else ended.set(), replay=3)
    line.says(b"\x1b[1mraw")
    line.target.close()
    assert ended.wait(10)
    assert b"".join(got) == b"re \x1b[1mraw"


def test_a_subscriber_that_leaves_gets_no_more(line: Line) -> None:
    got: list[bytes] = []
    leave = line.console.subscribe(got.append)
    line.says(b"one")
    leave()
    line.says(b"two")
    assert got == [b"one"]


def test_a_subscriber_that_raises_kills_nobody(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[bytes] = []
    got: list[bytes] = []

    def broken(data: bytes) -> None:
        calls.append(data)
        raise ValueError("a scanner's bug")

    line.console.subscribe(broken)
    line.console.subscribe(got.append)
    line.says(b"one")
    line.says(b"two")
    assert line.console.expect("onetwo", timeout=5)
    assert b"".join(got) == b"onetwo"
    assert calls == [b"one"]
    assert "a scanner's bug" in caplog.text


def test_a_subscriber_may_answer_and_may_close(connect: Connect) -> None:
    line = connect()
    line.console.subscribe(lambda data: line.console.send(b"yes") if b"?" in data else None)
    line.target.sendall(b"sure?")
    assert line.target.recv(10) == b"yes"
    line.console.subscribe(lambda data: line.console.close() if b"bye" in data else None)
    line.target.sendall(b"bye")
    assert line.console.wait_closed(10)
    assert line.target.recv(10) == b""


def test_what_has_arrived_was_given_to_who_subscribes(line: Line) -> None:
    """However long one of them takes, and from several threads at once."""
    got: list[bytes] = []
    go_on = threading.Event()

    def slow(data: bytes) -> None:
        go_on.wait(10)
        got.append(data)

    line.console.subscribe(slow)
    line.target.sendall(b"one")
    assert not line.console.catch_up(timeout=0.05)
    line.target.sendall(b"two")
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(line.console.catch_up, 10) for _ in range(3)]
        go_on.set()
        assert all(one.result() for one in waiting)
    assert b"".join(got) == b"onetwo"
    for number in range(500):
        line.target.sendall(b"%d" % number)
        assert line.console.catch_up(timeout=10)
        assert got.pop() == b"%d" % number
    line.target.close()
    assert line.console.wait_closed(10)
    assert line.console.catch_up(timeout=10)


def test_nobody_waits_for_the_end_of_a_flood(line: Line) -> None:
    def flood() -> None:
        with contextlib.suppress(OSError):
            while True:
                line.target.sendall(b"more and more\n" * 1000)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        line.console.expect("more", timeout=10)
        assert line.console.catch_up(timeout=10)
        assert line.console.catch_up(timeout=10)
    finally:
        line.console.close()
        thread.join(10)
    assert not thread.is_alive()


def test_a_transport_that_breaks_is_said(connect: Connect) -> None:
    class Unplugged:
        """A serial adapter that was pulled out."""

        def __init__(self) -> None:
            self.ours, self.theirs = socket.socketpair()
            self.ours.setblocking(False)

        def fileno(self) -> int:
            return self.ours.fileno()

        def read(self, size: int) -> bytes:
            if self.ours.recv(size):
                raise OSError(19, "No such device")
            return b""

        def write(self, data: memoryview) -> int:
            return len(data)

        def close(self) -> None:
            self.ours.close()
            self.theirs.close()

    transport = Unplugged()
    with Console(transport, name="board") as console:
        transport.theirs.sendall(b"x")
        with pytest.raises(ChannelLost, match=r"the console of board broke: .*No such device"):
            console.expect("login:", timeout=10)
