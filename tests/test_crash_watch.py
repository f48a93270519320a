"""What reads along a console: nothing that the target has said is missed at a test's end."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.crash import Rules
from pytest_hil.crash_watch import CrashWatch
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
