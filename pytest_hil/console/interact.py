"""A person at a console: the terminal's keys to the target, what it says to the terminal.

The terminal is raw meanwhile (Ctrl-C, too, goes to the target) and is put back on every
way out: a return, an exception, SIGTERM or SIGHUP. The console's own thread goes on reading and
recording however slow the terminal is.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import termios
import threading
import tty
from collections.abc import Iterator
from typing import Literal, NoReturn

from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, HilError

LEAVE = b"\x1d"  # Ctrl-]
_TAIL_LINES = 40
_SIGNALS = (signal.SIGTERM, signal.SIGHUP)

Left = Literal["left", "console closed", "terminal closed"]


def interact(console: Console, stdin_fd: int, stdout_fd: int) -> Left:
    """Connect a terminal to a console until Ctrl-] is typed, or one of them ends; says which.

    Shows the last lines that were said, then everything live. Raises SystemExit on SIGTERM and
    SIGHUP when it runs in the main thread.
    """
    with _signals_end_it(), _raw(stdin_fd):
        return _Session(console, stdin_fd, stdout_fd).run()


class _Session:
    def __init__(self, console: Console, stdin_fd: int, stdout_fd: int) -> None:
        self._console = console
        self._stdin = stdin_fd
        self._stdout = stdout_fd
        self._shown = console.mark().raw

    def run(self) -> Left:
        try:
            return self._talk()
        except OSError as error:
            if error.errno in (errno.EIO, errno.EPIPE):  # the terminal hung up
                return "terminal closed"
            raise

    def _talk(self) -> Left:
        self._say(f"the console of {self._console.name}; Ctrl-] leaves it")
        self._show_tail()
        news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Called with b"" at the console's end too.
        unsubscribe = self._console.subscribe(lambda _data: os.eventfd_write(news, 1))
        try:
            return self._loop(news)
        finally:
            # After this call no callback runs, so nobody writes to what is closed next.
            unsubscribe()
            os.close(news)

    def _loop(self, news: int) -> Left:
        poll = select.poll()
        poll.register(self._stdin, select.POLLIN)
        poll.register(news, select.POLLIN)
        while True:
            closed = self._console.closed
            self._show_news()
            if closed:
                self._say("the console has ended")
                return "console closed"
            ready = {fd for fd, _ in poll.poll()}
            if news in ready:
                os.eventfd_read(news)
            if self._stdin in ready and (left := self._keys()):
                return left

    def _keys(self) -> Left | None:
        keys = _read(self._stdin)
        if not keys:
            return "terminal closed"
        keys, leave, _ = keys.partition(LEAVE)
        if keys:
            try:
                # Short: while we wait here, nothing is shown.
                self._console.send(keys, timeout=0.5)
            except ChannelLost as error:
                if not self._console.closed:
                    self._say(error.message)
            except HilError:
                pass  # its owner ended it: the loop sees that it is closed
        if leave:
            self._say("left the console")
            return "left"
        return None

    def _show_tail(self) -> None:
        start, data = self._console.raw_after(max(0, self._shown - 16 * 1024))
        data = data[: self._shown - start]
        self._write(b"".join(data.splitlines(keepends=True)[-_TAIL_LINES:]))

    def _show_news(self) -> None:
        start, data = self._console.raw_after(self._shown)
        if start > self._shown:
            self._say(f"{start - self._shown} bytes were too fast for this terminal")
        self._shown = start + len(data)
        self._write(data)

    def _say(self, what: str) -> None:
        self._write(f"\r\n[pytest-hil: {what}]\r\n".encode())

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._stdout, rest) :]
            except BlockingIOError:  # somebody made the terminal non-blocking
                poll = select.poll()
                poll.register(self._stdout, select.POLLOUT)
                poll.poll()


@contextlib.contextmanager
def _raw(fd: int) -> Iterator[None]:
    """A terminal in raw mode; whatever else (a pipe) is left as it is."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        # A terminal that has gone away needs nothing back.
        with contextlib.suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSANOW, before)


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through the ``finally`` clauses instead of past them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, _frame: object) -> NoReturn:
        for each in _SIGNALS:  # a second one must not interrupt the putting back
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 4096)
    except OSError:  # EIO: the terminal hung up
        return b""
