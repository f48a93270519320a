"""A person at a console, on real pseudo-terminals."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.console.interact import LEAVE, interact

if TYPE_CHECKING:
    from tests.console.conftest import Line


class Terminal:
    """The screen and keyboard of a pseudo-terminal; ``fd`` is what a program gets."""

    def __init__(self) -> None:
        self.master, self.fd = pty.openpty()
        self.screen = b""
        self.before = self.mode()

    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.fd)

    def is_raw(self) -> bool:
        return not self.mode()[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def types(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def shows(self, wanted: bytes) -> None:
        """Read the screen until it shows that."""
        deadline = time.monotonic() + 10
        while wanted not in self.screen:
            ready, _, _ = select.select([self.master], [], [], deadline - time.monotonic())
            assert ready, f"{wanted!r} is not on the screen: {self.screen!r}"
            self.screen += os.read(self.master, 65536)

    def close(self) -> None:
        for fd in (self.master, self.fd):
            if fd >= 0:
                os.close(fd)
        self.master = self.fd = -1


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    terminal = Terminal()
    yield terminal
    terminal.close()


@pytest.fixture
def start(line: Line, terminal: Terminal) -> Iterator[Any]:
    """Starts interact() in a thread; it has ended when the test has."""
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(1))
        stack.callback(line.console.close)

        def go() -> Future[str]:
            return pool.submit(interact, line.console, terminal.fd, terminal.fd)

        yield go


def test_it_shows_the_tail_then_everything_and_sends_keys(
    line: Line, terminal: Terminal, start: Any
) -> None:
    line.says(b"".join(b"line %d\r\n" % n for n in range(100)) + b"/ # ")
    done = start()
    terminal.shows(b"Ctrl-] leaves it")
    terminal.shows(b"/ # ")
    assert b"line 99\r\n" in terminal.screen
    assert b"line 9\r\n" not in terminal.screen
    assert terminal.is_raw()
    line.says(b"\x1b[1mlive\x1b[0m")
    terminal.shows(b"\x1b[1mlive\x1b[0m")
    terminal.types(b"ls\r\x03\x1a")  # Ctrl-C and Ctrl-Z are the target's
    got = b""
    while len(got) < 5:
        got += line.target.recv(100)
    assert got == b"ls\r\x03\x1a"
    terminal.types(b"bye" + LEAVE + b"not sent")
    assert done.result(10) == "left"
    assert line.target.recv(100) == b"bye"
    assert terminal.mode() == terminal.before
    assert not line.console.closed


def test_it_ends_with_the_console(line: Line, terminal: Terminal, start: Any) -> None:
    done = start()
    terminal.shows(b"leaves it")
    line.target.sendall(b"powering off")
    line.target.close()
    assert done.result(10) == "console closed"
    terminal.shows(b"powering off")
    terminal.shows(b"the console has ended")
    assert terminal.mode() == terminal.before


def test_on_a_console_that_has_ended_it_shows_the_last_words(
    line: Line, terminal: Terminal, start: Any
) -> None:
    line.says(b"last words")
    line.target.close()
    assert line.console.wait_closed(10)
    assert start().result(10) == "console closed"
    terminal.shows(b"last words")


def test_it_ends_with_the_terminal(line: Line, start: Any, terminal: Terminal) -> None:
    done = start()
    terminal.shows(b"leaves it")
    os.close(terminal.master)
    terminal.master = -1
    assert done.result(10) == "terminal closed"


def test_a_target_that_takes_no_keys_is_said(line: Line, terminal: Terminal, start: Any) -> None:
    with pytest.raises(Exception, match="takes no input"):
        line.console.send(b"x" * 10_000_000, timeout=0.05)
    done = start()
    terminal.shows(b"leaves it")
    terminal.types(b"k")
    terminal.shows(b"takes no input")
    line.says(b"still shown")
    terminal.shows(b"still shown")
    terminal.types(LEAVE)
    assert done.result(10) == "left"


def test_pipes_do_as_well(line: Line) -> None:
    ours, theirs = os.pipe()
    screen, out = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(interact, line.console, ours, out)
        os.write(theirs, b"reboot\n")
        assert line.target.recv(100) == b"reboot\n"
        os.close(theirs)
        assert done.result(10) == "terminal closed"
    assert b"leaves it" in os.read(screen, 1000)
    for fd in (ours, screen, out):
        os.close(fd)


CHILD = """
import os, socket, sys
from pytest_hil.console.interact import interact
from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
ours, theirs = socket.socketpair()
console = Console(SocketTransport(ours), name="dut")
if sys.argv[1] == "raise":
    def broken(*args, **kwargs): raise ZeroDivisionError
    console.raw_after = broken
interact(console, 0, 1)
"""


@contextmanager
def child(terminal: Terminal, how: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, how],
        stdin=terminal.fd,
        stdout=terminal.fd,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_puts_the_terminal_back(terminal: Terminal, number: signal.Signals) -> None:
    with child(terminal, "wait") as process:
        terminal.shows(b"leaves it")
        assert terminal.is_raw()
        process.send_signal(number)
        assert process.wait(10) == 128 + number
    assert terminal.mode() == terminal.before


def test_an_exception_puts_the_terminal_back(terminal: Terminal) -> None:
    with child(terminal, "raise") as process:
        _, said = process.communicate(timeout=10)
    assert b"ZeroDivisionError" in said
    assert terminal.mode() == terminal.before
