"""What waits for a target learns at once that something has happened to it."""

from __future__ import annotations

import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.agent import build
from pytest_hil.console.interruption import Interruption
from pytest_hil.errors import Crashed, ExpectTimeout
from pytest_hil.shell.agent import AgentShell
from tests.console.conftest import Connect


def test_it_is_given_once() -> None:
    interruption = Interruption()
    interruption.check()
    interruption.give(Crashed("the first"))
    interruption.give(Crashed("the second"))
    with pytest.raises(Crashed, match="the first"):
        interruption.check()
    interruption.check()
    assert interruption.take() is None


def test_an_expect_that_waits(connect: Connect) -> None:
    line = connect()
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(line.console.expect, "never", timeout=60)
        line.says(b"something")
        line.console.interruption.give(Crashed("BUG: somewhere"))
        with pytest.raises(Crashed, match="BUG: somewhere"):
            waiting.result(10)
    # The console goes on, and nothing is lost.
    assert line.console.expect("something", timeout=10).text == "something"


def test_the_next_expect(connect: Connect) -> None:
    line = connect()
    line.console.interruption.give(Crashed("BUG: somewhere"))
    with pytest.raises(Crashed):
        line.console.expect("never", timeout=60)
    with pytest.raises(ExpectTimeout):
        line.console.expect("never", timeout=0.05)


@pytest.fixture
def agent() -> Iterator[tuple[AgentShell, Interruption]]:
    ours, theirs = socket.socketpair()
    interruption = Interruption()
    argv = [str(build.binary(platform.machine())), "--fd", str(theirs.fileno())]
    with theirs, process.start(argv, pass_fds=[theirs.fileno()]):
        theirs.close()
        with AgentShell(ours, name="here", interruption=interruption) as shell:
            shell.hello(10)
            yield shell, interruption


def when(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_a_command_that_runs_is_killed(
    agent: tuple[AgentShell, Interruption], tmp_path: Path
) -> None:
    shell, interruption = agent
    began = tmp_path / "began"
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(shell.run, f"echo $$ > {began}; sleep 4321", timeout=None)
        when(lambda: began.exists() and began.read_text() != "")
        pid = began.read_text().strip()
        interruption.give(Crashed("BUG: somewhere"))
        with pytest.raises(Crashed, match="BUG: somewhere"):
            waiting.result(10)
    # The shell goes on, and the command does not.
    when(lambda: not shell.run(f"kill -0 {pid}", check=False).ok)


def test_the_next_command(agent: tuple[AgentShell, Interruption]) -> None:
    shell, interruption = agent
    interruption.give(Crashed("BUG: somewhere"))
    with pytest.raises(Crashed):
        shell.run("echo never")
    assert shell.run("echo again").stdout == "again\n"
