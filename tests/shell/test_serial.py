"""Commands over a console: real shells on a pty, and everything that a console does to them."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.console.session import Console
from pytest_hil.errors import (
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    OutputTooLarge,
    TransferError,
)
from pytest_hil.shell.cksum import cksum
from pytest_hil.shell.serial import SerialShell
from pytest_hil.shell.serial_frames import Frame, Frames

SHELLS = {"dash": ["dash", "-i"], "bash": ["bash", "--norc", "-i"], "busybox": ["busybox", "sh"]}


class Line:
    """A pty as a serial line: what comes out of it may be disturbed on its way."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._random = random.Random(1)
        self.noise: list[bytes] = []
        self.often = 1.0
        self.lose = 0.0
        self.lose_typed = 0.0
        self.written = bytearray()

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        data = os.read(self._fd, size)
        if self.lose:
            data = bytes(one for one in data if self._random.random() >= self.lose)
        # Anywhere, in the middle of a word too, as printk does it; never one inside another.
        noise = [one for one in self.noise if self._random.random() < self.often]
        places = sorted((self._random.randrange(len(data) + 1) for _ in noise), reverse=True)
        for at, message in zip(places, noise, strict=True):
            data = data[:at] + message + data[at:]
        return data or b"\0"

    def write(self, data: memoryview) -> int:
        self.written += data
        if self.lose_typed:
            kept = bytes(one for one in data if self._random.random() >= self.lose_typed)
            os.write(self._fd, kept)
            return len(data)
        return os.write(self._fd, data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._fd)


class Board:
    name = ""

    def __init__(self, argv: list[str], home: Path) -> None:
        ours, theirs = os.openpty()
        self.line = Line(ours)
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=home,
            env={"PATH": os.environ["PATH"], "PS1": "# ", "TERM": "vt100"},
            preexec_fn=lambda: _own_terminal(theirs),
        )
        os.close(theirs)
        self.console = Console(self.line, name="board")
        self.console.expect("# ", timeout=10)
        self.shell = SerialShell(self.console, name="board", where=str(home))

    def close(self) -> None:
        self.console.close()
        self.process.kill()
        self.process.wait()


def _own_terminal(fd: int) -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@pytest.fixture(params=[name for name, argv in SHELLS.items() if shutil.which(argv[0])])
def board(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Board]:
    found = Board(SHELLS[request.param], tmp_path)
    found.name = request.param
    yield found
    found.close()


@pytest.fixture
def dash(tmp_path: Path) -> Iterator[Board]:
    found = Board(SHELLS["dash"], tmp_path)
    yield found
    found.close()


def test_results(board: Board, tmp_path: Path) -> None:
    done = board.shell.run("echo out; echo err >&2; exit 3", check=False)
    assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
    assert board.shell.run("pwd").stdout == f"{tmp_path}\n"
    assert board.shell.run(["printf", "%s|", "a b", "$HOME", "*"]).stdout == "a b|$HOME|*|"
    text = "cat; echo $COLOUR; pwd"
    done = board.shell.run(text, input="in\n", env={"COLOUR": "blue"}, cwd="/")
    assert done.stdout == "in\nblue\n/\n"
    assert board.shell.run("kill -9 $$", check=False).exit_code == -9
    with pytest.raises(CommandFailed, match="no such thing"):
        board.shell.run("echo no such thing >&2; false")


def test_a_command_arrives_as_it_is(board: Board) -> None:
    words = ["-n %d \\n \\101 ~ a ~ a", "* [a-z]* $HOME `id` !! # é\x07\x7f'\"", "- ."]
    assert board.shell.run(["printf", "%s\n", *words]).stdout == "".join(f"{w}\n" for w in words)
    code, out, _err, _ = board.shell.raw("-x; echo also")
    assert (code, out) == (0, b"also\n")
    assert board.shell.raw("")[:3] == (0, b"", b"")
    # From what goes in one line to what does not.
    for size in range(1000, 1500, 50):
        assert board.shell.run("echo " + "y" * size).stdout == "y" * size + "\n"


def test_both_streams_at_every_size_around_the_frames(board: Board) -> None:
    for size in (1, 57, 399, 400, 401, 2999, 3000):
        text = f"printf %0{size}d 7; printf %0{size}d 8 >&2"
        done = board.shell.run(text)
        assert (done.stdout, done.stderr) == ("7".zfill(size), "8".zfill(size))
    assert board.shell.run("printf %0400d 7 >&2").stdout == ""


def test_the_console_is_a_shell_of_its_own_again(board: Board) -> None:
    board.shell.run("true")
    board.console.sendline("echo con$((20+3))sole")
    assert board.console.expect("con23sole", timeout=10).text == "con23sole"
    assert board.shell.run("echo again").stdout == "again\n"


def test_a_shell_that_asks_for_the_cursor_is_answered(board: Board) -> None:
    """Busybox waits for that, 20 ms a line; the others would take it for something typed."""
    for number in range(5):
        assert board.shell.run(f"echo {number}").stdout == f"{number}\n"
    asked = "\x1b[6n" in board.console.text(raw=True)
    assert (b"\x1b[1;1R\x15 sh " in board.line.written) == asked
    assert asked == (board.name == "busybox")


def test_what_a_program_says_is_bytes(board: Board, tmp_path: Path) -> None:
    data = os.urandom(200_001)
    (tmp_path / "a").write_bytes(data)
    board.shell.put(tmp_path / "a", str(tmp_path / "b"), mode=0o640)
    assert (tmp_path / "b").read_bytes() == data
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o640
    board.shell.get(str(tmp_path / "b"), tmp_path / "c")
    assert (tmp_path / "c").read_bytes() == data


def test_a_tree(board: Board, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "deep" / "file").write_text("text")
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o755)
    (tree / "link").symlink_to("run.sh")
    board.shell.put(tree, str(tmp_path / "there"))
    assert board.shell.run(str(tmp_path / "there" / "link")).stdout == "ran\n"
    board.shell.get(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "back" / "deep" / "file").read_text() == "text"
    assert (tmp_path / "back" / "link").readlink() == Path("run.sh")
    with pytest.raises(TransferError, match="/nothing"):
        board.shell.get(str(tmp_path / "nothing"), tmp_path / "x")


def test_a_slow_command_is_killed_with_its_children(dash: Board) -> None:
    with pytest.raises(CommandTimeout, match="begun"):
        dash.shell.run("sleep 4321 & echo begun; sleep 4321", timeout=0.5)
    assert dash.shell.run("echo still here").stdout == "still here\n"
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert "sleep 4321" not in found.stdout


def test_endless_output_ends(dash: Board) -> None:
    with pytest.raises(OutputTooLarge, match="1048576"):
        dash.shell.run("yes", max_output=2**20)
    assert dash.shell.run("echo still here").stdout == "still here\n"


def test_kernel_messages_in_the_middle(dash: Board) -> None:
    dash.line.noise = [
        b"[   12.345678] usb 1-1: new high-speed USB device number 2 using xhci_hcd\r\n",
        b"[ 1234.567890][  T123] a message with @ and . and [brackets] in it\r\n",
    ]
    for number in range(20):
        text = "x" * (number * 37)
        assert dash.shell.run(f"echo {number}.{text}").stdout == f"{number}.{text}\n"


def test_noise_of_no_known_form(dash: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hil.shell.serial_talk._AGAIN", 0.2)
    monkeypatch.setattr("pytest_hil.shell.serial_talk._STILL", 0.5)
    dash.shell.install()
    dash.line.often = 0.2
    dash.line.noise = [b"foo", b"\r\n<3>login: \r\n"]
    results = [dash.shell.run(f"seq {number} {number + 300}").stdout for number in range(5)]
    wanted = ["".join(f"{one}\n" for one in range(number, number + 301)) for number in range(5)]
    assert results == wanted


def test_lost_bytes(dash: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hil.shell.serial_talk._AGAIN", 0.2)
    monkeypatch.setattr("pytest_hil.shell.serial_talk._STILL", 0.5)
    dash.shell.install()
    dash.line.lose = 0.002
    for number in range(5):
        wanted = "".join(f"{one}\n" for one in range(number, number + 301))
        assert dash.shell.run(f"seq {number} {number + 300}").stdout == wanted


def test_lost_requests(dash: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hil.shell.serial_talk._AGAIN", 0.1)
    monkeypatch.setattr("pytest_hil.shell.serial_talk._STILL", 0.3)
    dash.shell.install()
    dash.line.lose_typed = 0.002
    assert dash.shell.run("echo $$").stdout
    for number in range(8):
        # What it runs, it runs once and as it was said.
        text = f"echo {number} >> ran; echo {number}.{'z' * 90}"
        assert dash.shell.run(text).stdout == f"{number}.{'z' * 90}\n"
    dash.line.lose_typed = 0.0
    assert dash.shell.run("cat ran").stdout.split() == [str(number) for number in range(8)]


def test_a_program_has_the_terminal(dash: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hil.shell.serial_talk._PATIENCE", 1.0)
    monkeypatch.setattr("pytest_hil.shell.serial_talk._AGAIN", 0.5)
    dash.shell.run("true")
    dash.console.sendline("cat")
    with pytest.raises(ChannelLost, match="is it at its prompt"):
        dash.shell.run("echo nobody there")


def test_a_shell_that_dies(dash: Board) -> None:
    dash.shell.run("true")
    threading.Timer(0.5, lambda: dash.process.send_signal(signal.SIGKILL)).start()
    began = time.monotonic()
    with pytest.raises(ChannelLost):
        dash.shell.run("sleep 60")
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("missing", ["base64", "cksum", "setsid"])
def test_without_a_program(tmp_path: Path, missing: str) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for word in (
        *("sh", "cat", "cksum", "md5sum", "base64", "cut", "wc", "head", "od", "sed", "stty"),
        *("mkfifo", "mkdir", "mv", "rm", "setsid", "tar", "chmod", "chown"),
    ):
        if word != missing:
            (tools / word).symlink_to(str(shutil.which(word)))
    board = Board(["dash", "-i"], tmp_path)
    try:
        board.console.sendline(f"PATH={tools}")
        data = os.urandom(5000)
        (tmp_path / "a").write_bytes(data)
        board.shell.put(tmp_path / "a", str(tmp_path / "b"))
        assert (tmp_path / "b").read_bytes() == data
        assert board.shell.run("cat a | wc -c").stdout.strip() == "5000"
    finally:
        board.close()


# --- the pieces ---


@given(st.binary(max_size=300))
def test_cksum_is_that_of_posix(data: bytes) -> None:
    said = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
    assert said.split()[0] == str(cksum(data)).encode()


@given(st.lists(st.integers(1, 40), max_size=20), st.integers(0, 60))
def test_frames_however_they_are_cut_and_mixed(sizes: list[int], where: int) -> None:
    frame = b"@NN D o 17 aGVsbG8gd29ybGQ= .\r\n"
    message = b"[    1.234567] kernel says\r\n"
    where = min(where, len(frame) - 2)
    data = b"noise\r\n" + frame[:where] + message + frame[where:]
    frames, found, start = Frames("NN"), [], 0
    for size in [*sizes, len(data)]:
        found += frames.feed(data[start : start + size])
        start += size
    assert found == [Frame("D", ("o", "17", "aGVsbG8gd29ybGQ="))]


@given(st.binary(max_size=200))
def test_nonsense_is_no_frame(data: bytes) -> None:
    frames = Frames("NN")
    assert frames.feed(b"@NN " + data.replace(b"\n", b"") + b"?\n") == []
    for line in (
        b"@NN 5 F 7 1 ~ F 7 1foo .",
        b"@NN 5 F 7 1 .",
        b"@NN F 7 1 ~ F 7 1 .",
        b"@NN 6 F 7 1 ~ F 7 1 .",
    ):
        assert frames.feed(line + b"\n") == []
    digest = hashlib.sha256(data).hexdigest()
    assert frames.feed(f"@NN 66 X {digest} ~ X {digest} .\n".encode()) == [Frame("X", (digest,))]
