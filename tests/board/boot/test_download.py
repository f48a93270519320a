"""Files by X- and YMODEM: lrzsz's receivers, at a socket and on a pty."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.board.boot.download import receiver
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, TransferError
from pytest_hil.shell.xmodem import Protocol, Sender

pytestmark = pytest.mark.skipif(shutil.which("rb") is None, reason="apt-get install lrzsz")

RECEIVERS: dict[Protocol, list[str]] = {
    "xmodem": ["rx", "--with-crc", "--binary", "received"],
    "xmodem-1k": ["rx", "--with-crc", "--binary", "received"],
    "ymodem": ["rb", "--binary"],
}


class Line:
    """Of what goes out, a byte in ``spoil`` is another one when it arrives."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._random = random.Random(1)
        self.spoil = 0

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        return os.read(self._fd, size)

    def write(self, data: memoryview) -> int:
        if self.spoil:
            wrong = [byte ^ 1 if not self._random.randrange(self.spoil) else byte for byte in data]
            return os.write(self._fd, bytes(wrong))
        return os.write(self._fd, data)

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class Board:
    """Somebody who receives."""

    def __init__(self, home: Path, *, pty: bool = False) -> None:
        self.home = home
        if pty:
            ours, self._theirs = os.openpty()
            tty.setraw(self._theirs)
        else:
            ours, self._theirs = (end.detach() for end in socket.socketpair())
        self.line = Line(ours)
        self.console = Console(self.line, name="board")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, argv: list[str]) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(
            argv,
            stdin=self._theirs,
            stdout=self._theirs,
            stderr=subprocess.DEVNULL,
            cwd=self.home,
        )
        return self.process

    def hang_up(self) -> None:
        if self._theirs >= 0:
            os.close(self._theirs)
            self._theirs = -1

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self.hang_up()
        self.console.close()


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with contextlib.closing(Board(tmp_path)) as made:
        yield made


def sent(board: Board, data: bytes, protocol: Protocol) -> bytes:
    """What arrives."""
    with receiver(board.console) as send:
        process = board.start(RECEIVERS[protocol])
        send(Sender(data, name="received", protocol=protocol))
    assert process.wait(30) == 0
    return (board.home / "received").read_bytes()


@pytest.mark.parametrize(
    ("protocol", "size"),
    [
        ("xmodem", 129),
        ("xmodem-1k", 20_001),
        ("ymodem", 20_001),
        *(
            pytest.param(protocol, size, marks=pytest.mark.slow)
            for protocol in RECEIVERS
            for size in (1, 128, 1024, 60_000)
        ),
    ],
)
def test_a_file_arrives(board: Board, protocol: Protocol, size: int) -> None:
    data = os.urandom(size)
    arrived = sent(board, data, protocol)
    if protocol == "ymodem":  # it says how long it is
        assert arrived == data
    else:
        assert arrived[:size] == data
        assert set(arrived[size:]) <= {0x1A}
        assert len(arrived) == -(-size // 128) * 128


@pytest.mark.slow
def test_on_a_terminal(tmp_path: Path) -> None:
    """There lrzsz empties its input after each word of its own, and the last one is lost at times:
    it takes as long as it takes, and arrives.
    """
    with contextlib.closing(Board(tmp_path, pty=True)) as board:
        data = os.urandom(5000)
        assert sent(board, data, "ymodem") == data


def test_an_empty_file(board: Board) -> None:
    assert sent(board, b"", "ymodem") == b""


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["xmodem-1k", "ymodem"])
def test_a_line_that_changes_bytes(board: Board, protocol: Protocol) -> None:
    board.line.spoil = 6000
    data = os.urandom(30_000)
    assert sent(board, data, protocol)[: len(data)] == data


def test_the_receiver_cancels(board: Board) -> None:
    with receiver(board.console) as send:
        process = board.start(RECEIVERS["ymodem"])
        board.console.expect("C")
        process.send_signal(signal.SIGTERM)  # it says so, with CANs
        with pytest.raises(TransferError, match="board did not receive the file: the receiver has"):
            send(Sender(bytes(100_000)))


def test_nobody_is_there(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sender, "patience", 0.02)
    with (
        receiver(board.console) as send,
        pytest.raises(TransferError, match="the receiver does not answer, 10 times over"),
    ):
        send(Sender(b"x"))


def test_the_line_ends(board: Board) -> None:
    with receiver(board.console) as send:
        process = board.start(RECEIVERS["ymodem"])
        board.console.expect("C")
        process.kill()
        process.wait()
        board.hang_up()
        began = time.monotonic()
        with pytest.raises(ChannelLost, match="board"):
            send(Sender(bytes(100_000)))
    assert time.monotonic() - began < 9
