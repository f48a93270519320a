"""LCUS relay boards: a pty, and a thread that is the board's firmware."""

from __future__ import annotations

import contextlib
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

from pytest_hil.board.power.lcus import LcusOptions, LcusRelay
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError

pytest.importorskip("serial")

Answer = Callable[[dict[int, bool]], bytes]


def in_words(state: dict[int, bool]) -> bytes:
    """As an LCUS-4 of EC Buying says it."""
    return b"".join(b"CH%d: %s\r\n" % (n, b"ON" if on else b"OFF") for n, on in state.items())


def in_bytes(state: dict[int, bool]) -> bytes:
    """As an 8-channel board of NOYITO says it."""
    return bytes(state.values())


def without_blanks(state: dict[int, bool]) -> bytes:
    return in_words(state).replace(b" ", b"").replace(b"\r\n", b"")


class Lcus:
    """A board: obeys commands whose sum is right, and answers 0xFF."""

    def __init__(self, channels: int = 4) -> None:
        self.state = dict.fromkeys(range(1, channels + 1), False)
        self.answer: Answer = in_words
        self.heard = b""
        self.stuck = False
        # One byte at a time, so many seconds apart.
        self.slow = 0.0
        self.master, self.slave = os.openpty()
        tty.setraw(self.slave, termios.TCSANOW)
        self.port = os.ttyname(self.slave)
        self._over, self._end = os.pipe()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        rest = b""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        poll.register(self._over, select.POLLIN)
        while all(fd == self.master for fd, _ in poll.poll()):
            data = os.read(self.master, 100)
            self.heard += data
            rest = self._obey(rest + data)

    def _obey(self, data: bytes) -> bytes:
        while data:
            if data[0] == 0xFF:
                self._say(self.answer(self.state))
                data = data[1:]
            elif data[0] != 0xA0:
                data = data[1:]
            elif len(data) < 4:
                return data
            else:
                if sum(data[:3]) & 0xFF == data[3] and data[1] in self.state and not self.stuck:
                    self.state[data[1]] = bool(data[2])
                data = data[4:]
        return b""

    def _say(self, words: bytes) -> None:
        for piece in [words[at : at + 1] for at in range(len(words))] if self.slow else [words]:
            os.write(self.master, piece)
            if self.slow and select.select([self._over], [], [], self.slow)[0]:
                return

    def close(self) -> None:
        if not self._thread.is_alive():
            return
        os.write(self._end, b"x")
        self._thread.join(10)
        for fd in (self._over, self._end, self.master, self.slave):
            with contextlib.suppress(OSError):
                os.close(fd)


@pytest.fixture
def board() -> Iterator[Lcus]:
    one = Lcus()
    yield one
    one.close()


def driver(board: Lcus, channel: int = 2, *, query: bool = True) -> LcusRelay:
    return LcusRelay(LcusOptions(board.port, channel, query=query))


def test_the_makers_own_examples(board: Lcus) -> None:
    one, two = driver(board, 1), driver(board, 2)
    for relay in (one, two):
        relay.on()
        relay.off()
    assert driver(board, query=True).read() is False  # by now it has heard all
    assert board.heard[:16].hex(" ") == (
        "a0 01 01 a2 a0 01 00 a1 a0 02 01 a3 a0 02 00 a2"  # as sellers of the boards write it
    )
    one.close()
    one.close()


@pytest.mark.parametrize("answer", [in_words, in_bytes, without_blanks])
@pytest.mark.parametrize("slow", [0.0, 0.002])
def test_the_state_is_read_back(board: Lcus, answer: Answer, slow: float) -> None:
    board.answer, board.slow = answer, slow
    relay, other = driver(board), driver(board, 3)
    assert relay.read() is False
    relay.on()
    assert (relay.read(), other.read()) == (True, False)
    relay.off()
    other.on()
    assert (relay.read(), other.read()) == (False, True)


def test_a_board_that_does_not_answer(board: Lcus) -> None:
    board.answer = lambda _state: b""
    relay = driver(board)
    relay.on()
    assert relay.read() is None
    Switch(relay, SwitchOptions(retries=0)).off()  # that is no error


def test_a_board_that_is_not_asked(board: Lcus) -> None:
    relay = driver(board, query=False)
    relay.on()
    assert relay.read() is None
    assert b"\xff" not in board.heard


@pytest.mark.parametrize(
    "garbage",
    [b"login: ", b"\x80\x00\xf8\x01", b"CH2: ON\r\nERROR\r\n", b"CH2: ONE\r\n", b"\x01\x02\x01"],
)
def test_garbage(board: Lcus, garbage: bytes) -> None:
    board.answer = lambda _state: garbage
    with pytest.raises(PowerError, match=r"answered b'") as caught:
        driver(board).read()
    assert board.port in caught.value.message


def test_a_port_that_never_stops(board: Lcus) -> None:
    board.answer, board.slow = lambda _state: b"x" * 100_000, 0.001
    began = time.monotonic()
    with pytest.raises(PowerError, match="answered b'xxx"):
        driver(board).read()
    assert time.monotonic() - began < 20, "by then it would still talk"


def test_what_came_before_is_no_answer(board: Lcus) -> None:
    os.write(board.master, b"CH2: ON\r\n")
    assert driver(board).read() is False


@pytest.mark.parametrize("answer", [in_words, in_bytes])
def test_no_such_channel(board: Lcus, answer: Answer) -> None:
    board.answer = answer
    with pytest.raises(InfrastructureError, match="has no channel 5") as caught:
        driver(board, 5).read()
    assert caught.value.mend == "it has: 1, 2, 3, 4"


def test_a_relay_that_is_stuck(board: Lcus) -> None:
    board.stuck = True
    with pytest.raises(PowerError, match="dut was told on and says off"):
        Switch(driver(board), SwitchOptions(retries=0), name="dut").on()


def test_it_is_pulled_out(board: Lcus) -> None:
    relay = driver(board)
    relay.on()
    port = board.port
    board.close()
    with pytest.raises(PowerError, match=f"no serial port {port}"):
        relay.off()


def test_another_process_has_the_port(board: Lcus) -> None:
    """Perhaps another run, with another relay of the board: it is tried again, then it works."""
    held = "import fcntl, sys; f = open(sys.argv[1], 'rb'); fcntl.flock(f, fcntl.LOCK_EX); "
    held += "print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", held, board.port], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(PowerError, match=f"in use by process {other.pid}"):
            driver(board).on()

        def free(_seconds: float) -> None:
            other.communicate()

        Switch(driver(board), sleep=free).on()
    assert board.state[2]


def test_no_serial_port(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(InfrastructureError, match="is no serial port"):
        LcusRelay(LcusOptions(str(file), 1)).on()
    with pytest.raises(PowerError, match="there is no serial port"):
        LcusRelay(LcusOptions(str(tmp_path / "none"), 1)).on()


def test_without_pyserial(board: Lcus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "serial", None)
    with pytest.raises(InfrastructureError, match="pyserial is not installed") as caught:
        driver(board).on()
    assert "pytest-hil[serial]" in caught.value.mend


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({}, "missing"),
        ({"port": "COM3"}, "is no serial port"),
        ({"port": "/dev/ttyUSB0", "channel": 0}, "out of range"),
    ],
)
def test_wrong_keys(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "lcus", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(LcusOptions)
