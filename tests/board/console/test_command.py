"""Consoles that are a program's stdio."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from pytest_hil import process
from pytest_hil.board.console.command import CommandConsole, CommandOptions
from pytest_hil.board.console.open import open_console
from pytest_hil.config.driver import Section
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, ConfigError, ToolMissing

MiB = 2**20
BOTH = pytest.mark.parametrize("pty", [True, False], ids=["pty", "socket"])


def opened(*argv: str, pty: bool = True) -> Console:
    return Console(CommandConsole(CommandOptions(argv, pty)).open(), name="dut", grace=0.1)


def python(code: str) -> tuple[str, str, str]:
    return (sys.executable, "-c", code)


@BOTH
def test_every_byte_passes_both_ways(pty: bool) -> None:
    every = bytes(range(256))
    with opened("cat", pty=pty) as console:
        console.send(every + b"end")
        console.expect("end", timeout=10)
        # Once: a terminal that echoed would say all of it twice.
        assert console.raw_after(0)[1] == every + b"end"


@BOTH
def test_it_has_a_terminal_or_not(pty: bool) -> None:
    facts = "[os.isatty(n) for n in (0, 1, 2)], os.getsid(0) == os.getpid()"
    code = f"import os; print({facts}, flush=True)"
    with opened(*python(code + "; import time; time.sleep(60)"), pty=pty) as console:
        console.expect(f"[{pty}, {pty}, False] ", exact=True, timeout=10)


def test_what_asks_on_the_terminal_asks_in_the_console() -> None:
    """ssh opens /dev/tty for a password, and must not be stopped for it."""
    code = "tty = open('/dev/tty', 'r+b', 0); tty.write(b'password: '); print(tty.readline())"
    with opened(*python(code)) as console:
        console.expect("password: ", timeout=10)
        console.sendline("secret")
        console.expect("b'secret", timeout=10)


@BOTH
def test_50_mb(pty: bool) -> None:
    """All of it comes, and its end."""
    code = f"import sys\nfor _ in range({50 * 16}): sys.stdout.write('x' * 65535 + '.')"
    with opened(*python(code), pty=pty) as console:
        assert console.wait_closed(60)
        assert console.mark().raw == 50 * MiB


@BOTH
def test_it_says_how_it_ended_and_what_it_said(pty: bool) -> None:
    with opened(
        "sh", "-c", "echo last; echo 'no route to \x1b[1mlab1' >&2; exit 255", pty=pty
    ) as c:
        c.expect("last", timeout=10)
        with pytest.raises(ChannelLost) as caught:
            c.expect("more", timeout=10)
        assert "sh ended with exit code 255; it said: no route to ␛[1mlab1" in str(caught.value)
        assert "no route" not in c.text()


def test_a_flood_of_complaints_stops_nobody() -> None:
    code = "head -c 1000000 /dev/zero >&2; echo done; cat"
    with opened("sh", "-c", code) as console:
        console.expect("done", timeout=10)
        console.send("alive")
        console.expect("alive", timeout=10)


@BOTH
def test_nothing_of_it_is_left(pty: bool) -> None:
    """Not what it started itself either, when that has the terminal or reads from us."""
    with opened("sh", "-c", "cat & echo $! $$; wait", pty=pty) as console:
        child, own = map(int, console.expect(r"(\d+) (\d+)\n", timeout=10).text.split())
    assert process.wait_for_pid(own, 10)
    assert process.wait_for_pid(child, 10)


def test_a_program_that_will_not_end() -> None:
    code = (
        "import signal, time\n"
        "for number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
        "print('stubborn', flush=True)\n"
        "time.sleep(1000)\n"
    )
    console = opened(*python(code))
    console.expect("stubborn", timeout=10)
    began = time.monotonic()
    console.close()
    assert time.monotonic() - began < 10


def test_it_dies_with_us() -> None:
    code = (
        "from pytest_hil.board.console.command import *\n"
        "t = CommandConsole(CommandOptions(('sh', '-c', 'echo $$; exec sleep 1000'))).open()\n"
        "import select, os\n"
        "p = select.poll(); p.register(t.fileno(), 1); p.poll()\n"
        "print(t.read(100).decode(), flush=True)\n"
        "import sys; sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as ours:
        assert ours.stdout is not None
        pid = int(ours.stdout.readline())
        assert process.start_time(pid) is not None
        ours.kill()
    assert process.wait_for_pid(pid, 10)


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(ToolMissing, match="no-such-program is not on PATH"):
        opened("no-such-program")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "no program"),
        ("ssh 'lab1", "cannot be split"),
        (7, "wanted a command"),
        ([], "no prog"),
    ],
)
def test_wrong_commands(section: Callable[..., Section], command: object, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        section("command", command=command).options(CommandOptions)


def test_open_console(section: Callable[..., Section]) -> None:
    table = section("command", command="sh -c 'echo \"login: \"; cat'", patience=0)
    with open_console(table, name="dut") as console:
        console.expect("login: ", timeout=10)


def test_open_console_of_a_program_that_keeps_failing(section: Callable[..., Section]) -> None:
    table = section("command", command="sh -c 'echo no such lab >&2; exit 3'", patience=0.3)
    with open_console(table, name="dut") as console, pytest.raises(ChannelLost) as caught:
        console.expect("login: ", timeout=10)
    assert "sh ended with exit code 3; it said: no such lab" in str(caught.value)


def test_open_console_starts_it_again(section: Callable[..., Section]) -> None:
    with open_console(section("command", command="sh -c 'echo $$; cat'"), name="dut") as console:
        first = int(console.expect(r"\d+\n", timeout=10).text)
        os.kill(first, signal.SIGKILL)
        console.expect("the console was lost; it is back after", timeout=10)
        assert int(console.expect(r"\d+\n", timeout=10).text) != first
        console.send("again")
        console.expect("again", timeout=10)
