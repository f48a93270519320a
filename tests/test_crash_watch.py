"""What reads along a console: nothing that the target has said is missed at a test's end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.crash import Rules, user_rule
from pytest_hil.crash_watch import CrashWatch, _Reader
from pytest_hil.errors import ConfigError, InfrastructureError, NoCrash

WARNING = b"""\
[    5.000001] ------------[ cut here ]------------
[    5.000002] WARNING: CPU: 0 PID: 77 at drivers/foo.c:12 foo_open+0x12/0x40 [foo]
[    5.000003] RIP: 0010:foo_open+0x12/0x40 [foo]
[    5.000004] Call Trace:
[    5.000005]  foo_open+0x12/0x40 [foo]
[    5.000006] ---[ end trace 0000000000000000 ]---
"""
# And so much behind it that it is known to be over.
OVER = WARNING + b"".join(b"[    5.00001%d] and so on\n" % number for number in range(9))


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
        assert watch.unseen() == ()  # as each test does at its beginning
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


@pytest.fixture
def heard() -> Iterator[tuple[CrashWatch, Console, socket.socket]]:
    """A watch of a console, and its other end."""
    ours, target = socket.socketpair()
    watch = CrashWatch(Rules)
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        yield watch, console, target
        watch.close()


Heard = tuple[CrashWatch, Console, socket.socket]


def test_who_waits_is_told_as_soon_as_a_crash_is_read(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing has to follow it, neither words nor a silence."""
    watch, console, target = heard
    watch.settle(0)
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)
    with watch.expect("WARNING", timeout=20) as expected:
        target.sendall(OVER)
    assert len(expected.crashes) == 1
    # The last words of a console too.
    ended = watch.expect("WARNING", timeout=20)
    began = time.monotonic()
    with ended:
        target.sendall(WARNING.replace(b"[    5", b"[    6"))
        target.shutdown(socket.SHUT_WR)
    assert len(ended.crashes) == 1
    assert time.monotonic() - began < 10
    assert console.closed


@pytest.mark.usefixtures("nothing_compiled")
def test_the_first_crash_of_a_process_that_is_wanted(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)
    watch, _, target = heard
    with watch.expect("WARNING", timeout=20) as expected:
        target.sendall(OVER)
    assert len(expected.crashes) == 1


@pytest.mark.usefixtures("nothing_compiled")
def test_what_was_said_before_a_block_is_none_of_its(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)
    watch, console, target = heard
    target.sendall(OVER)
    assert console.catch_up(60)
    with pytest.raises(NoCrash), watch.expect("WARNING", timeout=0):
        pass
    assert len(watch.since(0)) == 1


@pytest.mark.usefixtures("nothing_compiled")
def test_a_crash_between_two_tests_is_no_later_ones(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)
    watch, console, target = heard
    target.sendall(OVER)
    assert console.catch_up(60)
    assert len(watch.unseen()) == 1


@pytest.mark.usefixtures("nothing_compiled")
def test_a_crash_before_the_target_has_another_console(
    heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)
    watch, console, target = heard
    target.sendall(OVER)
    assert console.catch_up(60)
    other, end = socket.socketpair()
    with end, Console(SocketTransport(other), name="another") as another:
        watch.follow(another)
        assert len(watch.settle(0)) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_rules_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    monkeypatch.setattr(_Reader, "_compiled", compiled)

    def rules() -> Rules:
        raise ConfigError("crash rules 'theirs'", "they cannot be used", mend="Mend them.")

    ours, target = socket.socketpair()
    watch = CrashWatch(rules)
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        assert watch.settle(0) == ()
        assert watch.failure is None
        with pytest.raises(InfrastructureError) as failed, watch.expect("", timeout=1000):
            target.sendall(OVER)
        assert str(failed.value) == (
            "crashes cannot be found any more: crash rules 'theirs': they cannot be used\n"
            "  Mend them."
        )
        began = time.monotonic()
        assert watch.settle(0, certain=True) == ()
        assert time.monotonic() - began < 1
        assert watch.failure is failed.value
        watch.close()


def test_a_rule_that_breaks() -> None:
    rule = replace(user_rule("odd", "odd .*", "even"), body="no pattern")  # type: ignore[arg-type]
    ours, target = socket.socketpair()
    watch = CrashWatch(lambda: Rules().adding(rule))
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        target.sendall(b"odd one\r\nand so on\r\n")
        watch.settle(0)
        assert "crashes cannot be found any more: AttributeError: " in str(watch.failure)
        watch.close()


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
