"""Boards of these tests: ptys and sockets on which a test plays the target."""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import subprocess
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console

# Seconds; only what fails waits so long.
PATIENT = 20.0


class Board:
    """A pty: its slave is the port, and whoever has the master is the target."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.port = os.ttyname(self.slave)

    def raw(self) -> None:
        """What is said before anybody has opened the port does not come back as an echo."""
        tty.setraw(self.slave, termios.TCSANOW)

    def says(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.master, data) :]

    def hears(self, size: int) -> bytes:
        """The next bytes that were sent to it."""
        data = b""
        while len(data) < size and self.has_heard(PATIENT):
            data += os.read(self.master, size - len(data))
        return data

    def has_heard(self, timeout: float = 0.0) -> bool:
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def vanish(self) -> None:
        """The adapter is pulled out."""
        for fd in (self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)
        self.master = self.slave = -1


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Each test ends with the descriptors, threads and children that it began with."""
    # The thread that makes children stays for good; let it be there before.
    subprocess.run([sys.executable, "-c", ""], check=True, timeout=PATIENT)
    before = descriptors()
    yield
    deadline = time.monotonic() + 5
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.name.startswith("hil-spawn"):
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), thread
    assert descriptors() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def descriptors() -> dict[str, str]:
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            target = str(fd.readlink())
            if not target.startswith("/proc/"):
                found[fd.name] = target
    return found


@pytest.fixture
def board() -> Iterator[Board]:
    one = Board()
    yield one
    one.vanish()


@pytest.fixture
def boards() -> Iterator[Callable[[], Board]]:
    """Makes boards; they vanish at the end."""
    made: list[Board] = []

    def make() -> Board:
        made.append(Board())
        return made[-1]

    yield make
    for one in made:
        one.vanish()


@pytest.fixture
def section() -> Callable[..., Section]:
    """A ``console`` table, from its keys."""

    def make(driver: str, **written: object) -> Section:
        return Section("boards.toml", "[target.dut.console]", driver, written, Path("/etc/lab"))

    return make


class Sum:
    """What went through a console: how much, and its digest."""

    def __init__(self, console: Console, size: int) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._wanted = size
        self._all = threading.Event()
        console.subscribe(self._feed)

    def _feed(self, data: bytes) -> None:
        self.size += len(data)
        self._hash.update(data)
        if self.size >= self._wanted:
            self._all.set()

    def digest(self) -> str:
        """Of all of it, when it has come."""
        assert self._all.wait(60), f"{self.size} of {self._wanted} bytes came"
        return self._hash.hexdigest()


# Another process prints: a thread of ours would share our CPU time. It says the digest on stdout.
FLOOD = r"""
import hashlib, os, sys
left, seed, total = int(sys.argv[1]), bytes(range(256)) * 255, hashlib.sha256()
fd = int(sys.argv[2])
os.set_blocking(fd, True)
number = 0
while left:
    block = (b"%08d" % number + seed)[:left]
    number += 1
    left -= len(block)
    total.update(block)
    while block:
        block = block[os.write(fd, block):]
if fd != 1:
    print(total.hexdigest())
"""


@pytest.fixture
def flooded() -> Callable[[Console, int, int], None]:
    """Another process says ``size`` bytes to a descriptor; all of them come, as they are."""

    def flood(console: Console, fd: int, size: int) -> None:
        total = Sum(console, size)
        printer = subprocess.run(
            [sys.executable, "-c", FLOOD, str(size), str(fd)],
            pass_fds=[fd],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=60,
        )
        assert total.digest() == printer.stdout.strip()
        assert total.size == size

    return flood
