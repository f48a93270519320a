"""What reads along a console: nothing that the target has said is missed at a test's end."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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


@dataclass(frozen=True, slots=True)
class Heard:
    """A watched console, and its other end; ``crashed``: whether a crash was ever read."""

    watch: CrashWatch
    console: Console
    target: socket.socket
    crashed: threading.Event


@contextlib.contextmanager
def hearing(rules: Callable[[], Rules] = Rules) -> Iterator[Heard]:
    ours, target = socket.socketpair()
    watch = CrashWatch(rules)
    crashed = threading.Event()
    watch.on_crash = lambda _crash: crashed.set()
    with target, Console(SocketTransport(ours), name="it") as console:
        watch.follow(console)
        yield Heard(watch, console, target, crashed)
        watch.close()


@pytest.fixture
def heard() -> Iterator[Heard]:
    with hearing() as found:
        yield found


@pytest.fixture
def nothing_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has watched no console yet."""
    monkeypatch.setattr(_Reader, "_compiled", False)


@pytest.fixture
def no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is read is not read because a console fell silent."""
    monkeypatch.setattr("pytest_hil.console.session.SILENCE", 1000.0)


def test_a_crash_that_was_said_and_not_read_yet() -> None:
    """Rules that take their time to compile: the test is at its end before they have."""

    def rules() -> Rules:
        time.sleep(0.2)
        return Rules()

    with hearing(rules) as heard:
        heard.target.sendall(WARNING)
        assert [one.title for one in heard.watch.settle(0)] == ["WARNING in foo_open [foo]"]


def test_each_block_wants_a_crash_of_its_own(heard: Heard) -> None:
    expected = heard.watch.expect("WARNING", timeout=0.1)
    with expected:
        heard.target.sendall(WARNING)
        assert heard.crashed.wait(60)
    assert [one.title for one in expected.crashes] == ["WARNING in foo_open [foo]"]
    with pytest.raises(NoCrash), expected:
        pass
    assert expected.crashes == []


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize("words", [b"an answer\r\n", WARNING])
def test_rules_are_not_compiled_while_somebody_waits_for_an_answer(words: bytes) -> None:
    said: list[str] = []
    answered = threading.Event()

    def rules() -> Rules:
        said.append("compiled")
        return Rules()

    def hear(_data: bytes) -> None:
        said.append("answered")
        answered.set()

    with hearing(rules) as heard:
        assert heard.watch.unseen() == ()  # as each test does at its beginning
        heard.console.subscribe(hear)
        heard.target.sendall(words)
        assert answered.wait(60)
        # The console falls silent: nobody has to ask.
        _until(lambda: "compiled" in said)
        assert said == ["answered", "compiled"]
        assert heard.crashed.wait(60) if words is WARNING else heard.watch.settle(0) == ()


@pytest.mark.usefixtures("nothing_compiled")
def test_a_console_that_never_falls_silent_is_read_too(heard: Heard) -> None:
    heard.target.sendall(WARNING)
    deadline = time.monotonic() + 60
    while not heard.crashed.wait(0.02):
        heard.target.sendall(b"[    6.000000] and so on\r\n")
        assert time.monotonic() < deadline


@pytest.mark.usefixtures("nothing_compiled", "no_silence")
def test_the_last_words_before_a_console_ends_are_read(heard: Heard) -> None:
    heard.target.sendall(WARNING)
    heard.target.shutdown(socket.SHUT_WR)
    assert heard.crashed.wait(60)


@pytest.mark.usefixtures("no_silence")
def test_who_waits_is_told_as_soon_as_a_crash_is_read(heard: Heard) -> None:
    """Nothing has to follow it, neither words nor a silence."""
    heard.watch.settle(0)
    with heard.watch.expect("WARNING", timeout=20) as expected:
        heard.target.sendall(OVER)
    assert len(expected.crashes) == 1
    # The last words of a console too.
    ended = heard.watch.expect("WARNING", timeout=20)
    began = time.monotonic()
    with ended:
        heard.target.sendall(WARNING.replace(b"[    5", b"[    6"))
        heard.target.shutdown(socket.SHUT_WR)
    assert len(ended.crashes) == 1
    assert time.monotonic() - began < 10
    assert heard.console.closed


@pytest.mark.usefixtures("nothing_compiled", "no_silence")
def test_the_first_crash_of_a_process_that_is_wanted(heard: Heard) -> None:
    with heard.watch.expect("WARNING", timeout=20) as expected:
        heard.target.sendall(OVER)
    assert len(expected.crashes) == 1


@pytest.mark.usefixtures("nothing_compiled", "no_silence")
def test_what_was_said_before_a_block_is_none_of_its(heard: Heard) -> None:
    heard.target.sendall(OVER)
    assert heard.console.catch_up(60)
    with pytest.raises(NoCrash), heard.watch.expect("WARNING", timeout=0):
        pass
    assert len(heard.watch.since(0)) == 1


@pytest.mark.usefixtures("nothing_compiled", "no_silence")
def test_a_crash_between_two_tests_is_no_later_ones(heard: Heard) -> None:
    heard.target.sendall(OVER)
    assert heard.console.catch_up(60)
    assert len(heard.watch.unseen()) == 1


@pytest.mark.usefixtures("nothing_compiled", "no_silence")
def test_a_crash_before_the_target_has_another_console(heard: Heard) -> None:
    heard.target.sendall(OVER)
    assert heard.console.catch_up(60)
    other, end = socket.socketpair()
    with end, Console(SocketTransport(other), name="another") as another:
        heard.watch.follow(another)
        assert len(heard.watch.settle(0)) == 1


@pytest.mark.parametrize("compiled", [False, True])
def test_rules_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    monkeypatch.setattr(_Reader, "_compiled", compiled)

    def rules() -> Rules:
        raise ConfigError("crash rules 'theirs'", "they cannot be used", mend="Mend them.")

    with hearing(rules) as heard:
        watch = heard.watch
        assert watch.settle(0) == ()
        assert watch.failure is None
        with pytest.raises(InfrastructureError) as failed, watch.expect("", timeout=1000):
            heard.target.sendall(OVER)
        assert str(failed.value) == (
            "crashes cannot be found any more: crash rules 'theirs': they cannot be used\n"
            "  Mend them."
        )
        began = time.monotonic()
        assert watch.settle(0, certain=True) == ()
        assert time.monotonic() - began < 1
        assert watch.failure is failed.value


def test_a_rule_that_breaks() -> None:
    rule = replace(user_rule("odd", "odd .*", "even"), body="no pattern")  # type: ignore[arg-type]
    with hearing(lambda: Rules().adding(rule)) as heard:
        heard.target.sendall(b"odd one\r\nand so on\r\n")
        heard.watch.settle(0)
        assert "crashes cannot be found any more: AttributeError: " in str(heard.watch.failure)


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
