"""What reads along a console: nothing that the target has said is missed at a test's end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.crash import Rules
from pytest_hil.crash_watch import CrashWatch, _Reader
from pytest_hil.errors import NoCrash

WARNING = b"""\
[    5.000001] ------------[ cut here ]------------
[    5.000002] WARNING: CPU: 0 PID: 77 at drivers/foo.c:12 foo_open+0x12/0x40 [foo]
[    5.000003] RIP: 0010:foo_open+0x12/0x40 [foo]
[    5.000004] Call Trace:
[    5.000005]  foo_open+0x12/0x40 [foo]
[    5.000006] ---[ end trace 0000000000000000 ]---
"""


def test_a_crash_that_was_said_and_not_read_yet() -> None:
    """Rules that take their time to compile: the test is at its end before they have."""

    def rules() -> Rules:
        time.sleep(0.2)
        return Rules()

    ours, target = socket.socketpair()
    watch = CrashWatch(rules)
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        target.sendall(WARNING)
        assert [one.title for one in watch.settle(0)] == ["WARNING in foo_open [foo]"]
        watch.close()


def test_each_block_wants_a_crash_of_its_own() -> None:
    ours, target = socket.socketpair()
    watch = CrashWatch(Rules)
    seen = threading.Event()
    watch.on_crash = lambda _crash: seen.set()
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        expected = watch.expect("WARNING", timeout=0.1)
        with expected:
            target.sendall(WARNING)
            assert seen.wait(60)
        assert [one.title for one in expected.crashes] == ["WARNING in foo_open [foo]"]
        with pytest.raises(NoCrash), expected:
            pass
        assert expected.crashes == []
        watch.close()


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has watched no console yet."""
    monkeypatch.setattr(_Reader, "_compiled", False)


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("words", [b"an answer\r\n", WARNING])
def test_rules_are_not_compiled_while_somebody_waits_for_an_answer(words: bytes) -> None:
    ours, target = socket.socketpair()
    said: list[str] = []

    def rules() -> Rules:
        said.append("compiled")
        return Rules()

    watch = CrashWatch(rules)
    crashed = threading.Event()
    watch.on_crash = lambda _crash: crashed.set()
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        answered = threading.Event()

        def hear(_data: bytes) -> None:
            said.append("answered")
            answered.set()

        console.subscribe(hear)
        target.sendall(words)
        assert answered.wait(60)
        # The console falls silent: nobody has to ask.
        _until(lambda: "compiled" in said)
        assert said == ["answered", "compiled"]
        assert crashed.wait(60) if words is WARNING else watch.settle(0) == ()
        watch.close()


@pytest.mark.usefixtures("nothing_compiled")
def test_a_console_that_never_falls_silent_is_read_too() -> None:
    ours, target = socket.socketpair()
    watch = CrashWatch(Rules)
    crashed = threading.Event()
    watch.on_crash = lambda _crash: crashed.set()
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        target.sendall(WARNING)
        deadline = time.monotonic() + 60
        while not crashed.wait(0.02):
            target.sendall(b"[    6.000000] and so on\r\n")
            assert time.monotonic() < deadline
        watch.close()


@pytest.mark.usefixtures("nothing_compiled")
def test_the_last_words_before_a_console_ends_are_read() -> None:
    ours, target = socket.socketpair()
    watch = CrashWatch(Rules)
    crashed = threading.Event()
    watch.on_crash = lambda _crash: crashed.set()
    with Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        with target:
            target.sendall(WARNING)
        assert crashed.wait(60)
        watch.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
