"""Somebody at a terminal: a pty, with a thread or this test as the person."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.board.power.manual import ManualOptions, ManualPower
from pytest_hil.board.power.switch import PowerError, Switch
from pytest_hil.errors import InfrastructureError

PATIENT = 30.0


class Terminal:
    """A pty; a person who sees a question answers it."""

    def __init__(self) -> None:
        self.master, self.slave = os.openpty()
        self.path = Path(os.ttyname(self.slave))
        self.seen = b""
        self._person: threading.Thread | None = None

    def see(self, wanted: bytes) -> None:
        """Until it is on the screen."""
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        until = time.monotonic() + PATIENT
        while wanted not in self.seen:
            assert poll.poll(max(0.0, until - time.monotonic()) * 1000), self.seen
            self.seen += os.read(self.master, 4096)

    def person(self, answer: bytes) -> None:
        """Types an answer when asked."""

        def act() -> None:
            self.see(b"(q: no): ")
            os.write(self.master, answer)

        self._person = threading.Thread(target=act)
        self._person.start()

    def close(self) -> None:
        if self._person is not None:
            self._person.join(PATIENT)
        os.close(self.master)
        if self.slave >= 0:
            os.close(self.slave)


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    one = Terminal()
    yield one
    one.close()


def driver(terminal: Terminal, *, timeout: float = PATIENT) -> ManualPower:
    return ManualPower(ManualOptions("the left rpi4", timeout), terminal=terminal.path)


@pytest.mark.parametrize("word", ["on", "off"])
def test_it_is_done(terminal: Terminal, word: str) -> None:
    terminal.person(b"\n")
    power = driver(terminal)
    getattr(power, word)()
    assert f"Please switch the left rpi4 {word}, then press Enter".encode() in terminal.seen
    assert power.read() is None
    power.close()
    power.close()


@pytest.mark.parametrize("answer", [b"q\n", b"No\n", b"\x04"])
def test_it_is_not_done(terminal: Terminal, answer: bytes) -> None:
    terminal.person(answer)
    with pytest.raises(InfrastructureError, match="asked to switch the left rpi4 on, and did not"):
        Switch(driver(terminal)).on()
    assert terminal.seen.count(b">>>") == 1, "nobody is asked twice"


def test_a_raw_terminal(terminal: Terminal) -> None:
    tty.setraw(terminal.slave)
    terminal.person(b"\r")
    driver(terminal).on()


def test_what_was_typed_before_is_no_answer(terminal: Terminal) -> None:
    os.write(terminal.master, b"\n\nls\n")
    with pytest.raises(InfrastructureError, match=r"did not answer within 0.2 s"):
        driver(terminal, timeout=0.2).on()


def test_the_name_steers_no_terminal(terminal: Terminal) -> None:
    terminal.person(b"\n")
    ManualPower(ManualOptions("a\x1b[2Jb", PATIENT), terminal=terminal.path).on()
    assert b"\x1b[2J" not in terminal.seen


def test_no_terminal_at_all(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (file, tmp_path / "none"):
        with pytest.raises(InfrastructureError, match="nobody can be asked to switch the board on"):
            ManualPower(ManualOptions(), terminal=path).on()
    assert file.read_bytes() == b""


# --- /dev/tty ---

ASK = """
from pytest_hil.board.power.manual import ManualOptions, ManualPower

def test_power():
    print("this is captured")
    ManualPower(ManualOptions()).on()
"""
ASK_PLAINLY = ASK + "\ntest_power()\n"


@pytest.fixture
def asking(tmp_path: Path) -> Path:
    path = tmp_path / "test_asking.py"
    path.write_text(ASK)
    return path


def test_while_pytest_captures(terminal: Terminal, asking: Path) -> None:
    """A whole pytest whose stdin is nothing and whose stdout is a pipe, on a terminal."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    argv += [f"--rootdir={asking.parent}"]
    shell = [
        "sh",
        "-c",
        'exec "$0" "$@" </dev/null',
        *argv,
        f"--rootdir={asking.parent}",
        str(asking),
    ]
    with subprocess.Popen(
        ["setsid", "--ctty", *shell],
        stdin=terminal.slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as run:
        try:
            terminal.see(b">>> Please switch the board on, then press Enter (q: no): ")
            os.write(terminal.master, b"\n")
            said, _ = run.communicate(timeout=PATIENT)
        finally:
            run.kill()
    assert run.returncode == 0, said
    assert "1 passed" in said
    assert b"captured" not in terminal.seen


def test_without_a_controlling_terminal() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ASK_PLAINLY],
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENT,
    )
    assert "nobody can be asked to switch the board on: this run has no terminal\n" in run.stderr
    assert "run it in a terminal" in run.stderr


def test_in_the_background(terminal: Terminal) -> None:
    """It is not stopped by SIGTTIN, which nobody would understand."""
    shell = ["sh", "-c", 'set -m; "$0" -c "$1" & wait $!', sys.executable, ASK_PLAINLY]
    run = subprocess.run(
        ["setsid", "--ctty", *shell],
        stdin=terminal.slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENT,
    )
    assert "this run is in the background of its terminal" in run.stdout
    assert "fg" in run.stdout


def test_the_terminal_is_closed(terminal: Terminal) -> None:
    def hang_up() -> None:
        terminal.see(b"(q: no): ")
        os.close(terminal.master)
        terminal.master = os.open(os.devnull, os.O_RDONLY)

    person = threading.Thread(target=hang_up)
    person.start()
    with pytest.raises(InfrastructureError, match="switch the left rpi4 on") as caught:
        driver(terminal).on()
    person.join()
    assert not isinstance(caught.value, PowerError)
