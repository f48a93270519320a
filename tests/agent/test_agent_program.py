"""The agent itself, spoken to in frames: handshake, nonsense, limits, the end of the channel."""

from __future__ import annotations

import contextlib
import errno
import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.agent import build, protocol
from pytest_hil.agent.frames import HEADER_SIZE, MAX_PAYLOAD, FrameType, pack
from pytest_hil.agent.protocol import Credit, Data, Done, Entry, Exit, Failed, FileEnd

if TYPE_CHECKING:
    from tests.agent.conftest import Agent

MANY = 2**31


def run(operation: int, command: str, *, credit: int = MANY, stdin: bool = False) -> bytes:
    return protocol.execute(operation, ["/bin/sh", "-c", command], credit=credit, stdin=stdin)


class TestHello:
    def test_says_who_it_is(self, fresh_agent: Agent) -> None:
        answer = fresh_agent.hello()
        assert answer.version == protocol.VERSION
        assert answer.build == build.source_hash()
        assert answer.arch in build.TARGETS

    def test_again_with_the_same_nonce_changes_nothing(self, agent: Agent) -> None:
        agent.send(run(1, "read x; echo $x", stdin=True))
        agent.hello()
        agent.send(protocol.data(1, b"on\n", end=True))
        assert agent.end_of(1) == Exit(1, 0, False)

    def test_with_a_new_nonce_ends_the_old_session(self, agent: Agent, tmp_path: Path) -> None:
        agent.send(
            run(1, "sleep 1000 & sleep 1000"),
            protocol.put(2, str(tmp_path / "x")),
            Entry(2, "f", "", 0o644).pack(),
            protocol.data(2, b"half"),
            run(3, "exit 3"),
        )
        agent.end_of(3)
        (child,) = agent.children()
        assert list(tmp_path.iterdir())
        agent.hello(bytes(16))
        agent.settle(lambda: agent.living(child) == [])
        assert list(tmp_path.iterdir()) == []

    def test_of_another_version_is_answered_but_begins_nothing(self, fresh_agent: Agent) -> None:
        fresh_agent.send(
            pack(FrameType.HELLO, 0, bytes(16) + struct.pack("<H", 99)), run(1, "exit 1")
        )
        fresh_agent.hello()
        fresh_agent.send(run(2, "exit 2"))
        assert fresh_agent.until(lambda e: isinstance(e, Exit)) == Exit(2, 2, False)

    @pytest.mark.parametrize("size", [0, 1, HEADER_SIZE, 30000, MAX_PAYLOAD + HEADER_SIZE - 1])
    def test_padded_is_heard_inside_any_frame(self, agent: Agent, size: int) -> None:
        half = pack(FrameType.DATA, 1, bytes(MAX_PAYLOAD))[:size]
        agent.send(half, protocol.hello(bytes(16), padding=True))
        agent.until(lambda e: isinstance(e, protocol.HelloOk) and e.nonce == bytes(16))


class TestNonsense:
    def test_between_good_frames_costs_nothing(self, agent: Agent) -> None:
        junk = [b"\0" * 100, b"\x1bHIL" * 20, os.urandom(5000).replace(b"\x1b", b""), b"\x1b"]
        for operation, between in enumerate(junk, 1):
            agent.send(run(operation, f"exit {operation}"), between)
        for operation in range(1, len(junk) + 1):
            assert agent.end_of(operation) == Exit(operation, operation, False)

    def test_damaged_payload(self, agent: Agent) -> None:
        damaged = bytearray(run(1, "exit 1"))
        damaged[-3] ^= 1
        agent.send(bytes(damaged), run(2, "exit 2"))
        failed = agent.end_of(1)
        assert isinstance(failed, Failed)
        assert failed.error == errno.EBADMSG
        assert agent.end_of(2) == Exit(2, 2, False)

    @pytest.mark.parametrize(
        ("type_", "payload"),
        [
            (FrameType.EXEC, b""),
            (FrameType.EXEC, struct.pack("<IIHH", 0, 0, 0, 0) + b"\0"),
            (FrameType.EXEC, struct.pack("<IIHH", 0, 0, 1, 0) + b"\0no end"),
            (FrameType.EXEC, struct.pack("<IIHH", 0, 0, 9000, 0) + b"\0" * 9001),
            (FrameType.EXEC, struct.pack("<IIHH", 0, 0, 1, 0) + b"\0true\0more"),
            (FrameType.PUT, b""),
            (FrameType.PUT, b"/tmp/x"),
            (FrameType.PUT, b"\0"),
            (FrameType.PUT, b"/tmp/\0"),
            (FrameType.PUT, b"/" * 5000 + b"x\0"),
            (FrameType.GET, b""),
            (FrameType.GET, bytes(4) + b"x" * 5000 + b"\0"),
            (FrameType.GET, bytes(4) + b"\0"),
            (FrameType.PERSONALISE, b""),
            (FrameType.PERSONALISE, struct.pack("<BqH", 1, 0, 31) + bytes(31) + b"\0\0"),
            (FrameType.PERSONALISE, struct.pack("<BqH", 1, 0, 600) + bytes(600) + b"\0\0"),
            (FrameType.PERSONALISE, struct.pack("<BqH", 1, 0, 65535) + bytes(32) + b"\0\0"),
            (FrameType.PERSONALISE, struct.pack("<BqH", 2, -1, 0) + b"\0\0"),
            (FrameType.PERSONALISE, struct.pack("<BqH", 4, 0, 0) + b"no end"),
            (FrameType.PERSONALISE, struct.pack("<BqH", 8, 0, 0) + b"\0" + b"a" * 33 + b"\0"),
            (FrameType.POWER, b""),
            (FrameType.POWER, b"\7"),
            (FrameType.POWER, b"\0\0"),
        ],
    )
    def test_malformed_requests(self, agent: Agent, type_: FrameType, payload: bytes) -> None:
        agent.send(pack(type_, 5, payload), run(6, "exit 6"))
        failed = agent.end_of(5)
        assert isinstance(failed, Failed)
        assert failed.error in (errno.EBADMSG, errno.EINVAL)
        assert agent.end_of(6) == Exit(6, 6, False)

    def test_unknown_request(self, agent: Agent) -> None:
        agent.send(pack(77, 5, b"?"))
        failed = agent.end_of(5)
        assert isinstance(failed, Failed)
        assert (failed.error, failed.text) == (errno.ENOSYS, "no such request: 77")

    def test_frames_of_ended_operations_are_late_not_wrong(self, agent: Agent) -> None:
        agent.send(run(1, "exit 1"))
        agent.end_of(1)
        agent.send(
            protocol.data(1, b"x"),
            protocol.credit(1, 1),
            protocol.cancel(1),
            protocol.commit(1),
            FileEnd(1, 0, 0).pack(),
            Entry(1, "f", "", 0).pack(),
            run(2, "exit 2"),
        )
        assert agent.next() == Exit(2, 2, False)

    def test_frames_of_another_kind_of_operation(self, agent: Agent) -> None:
        agent.send(run(1, "sleep 1000"), protocol.commit(1))
        failed = agent.end_of(1)
        assert isinstance(failed, Failed)
        assert failed.error == errno.EPROTO
        agent.settle(lambda: agent.children() == [])

    def test_the_same_number_twice(self, agent: Agent) -> None:
        agent.send(run(1, "sleep 1000"), run(1, "exit 1"))
        failed = agent.end_of(1)
        assert isinstance(failed, Failed)
        assert failed.error == errno.EEXIST
        agent.settle(lambda: agent.children() == [])

    @pytest.mark.parametrize(
        "frames",
        [
            [protocol.data(1, b"x")],
            [protocol.commit(1)],
            [FileEnd(1, 0, 0).pack()],
            [Entry(1, "f", "below", 0o644).pack()],
            [Entry(1, "d", "", 0o755).pack(), Entry(1, "f", "../out", 0o644).pack()],
            [Entry(1, "d", "", 0o755).pack(), Entry(1, "f", "/out", 0o644).pack()],
            [Entry(1, "d", "", 0o755).pack(), Entry(1, "f", "a/..", 0o644).pack()],
            [Entry(1, "d", "", 0o755).pack(), Entry(1, "f", "", 0o644).pack()],
            [Entry(1, "f", "", 0o644).pack(), protocol.commit(1)],
            [Entry(1, "f", "", 0o644).pack(), FileEnd(1, 1, 0).pack()],
            [Entry(1, "f", "", 0o644).pack(), FileEnd(1, 0, 1).pack()],
            [Entry(1, "p", "", 0o644).pack()],
            [pack(FrameType.ENTRY, 1, b"f")],
        ],
        ids=range(13),
    )
    def test_a_put_that_makes_no_sense_leaves_nothing(
        self, agent: Agent, tmp_path: Path, frames: list[bytes]
    ) -> None:
        agent.send(protocol.put(1, str(tmp_path / "x")), *frames)
        failed = agent.end_of(1)
        assert isinstance(failed, Failed)
        assert failed.error in (errno.EBADMSG, errno.EINVAL)
        assert list(tmp_path.iterdir()) == []


class TestLimits:
    def test_operations(self, agent: Agent) -> None:
        agent.send(*(run(number, "read x", stdin=True) for number in range(1, 66)))
        failed = agent.end_of(65)
        assert isinstance(failed, Failed)
        assert failed.error == errno.EAGAIN
        agent.send(protocol.cancel(7))
        assert agent.end_of(7) == Exit(7, -9, False)
        agent.send(run(66, "exit 6"))
        assert agent.end_of(66) == Exit(66, 6, False)

    def test_output_waits_for_credit(self, agent: Agent) -> None:
        agent.send(run(1, "yes", credit=100_000), run(2, "exit 2"))
        agent.send(protocol.credit(1, 5))
        received = 0
        while received < 100_005:
            event = agent.next()
            received += len(event.payload) if isinstance(event, Data) else 0
        agent.send(run(3, "exit 3"))
        assert not any(isinstance(e, Data) for e in agent.events)
        assert agent.end_of(3) == Exit(3, 3, False)
        assert received == 100_005
        assert agent.memory() < 1_000_000

    def test_a_silent_host_cannot_make_it_grow(self, agent: Agent) -> None:
        agent.sock.settimeout(0.2)
        frame, sent = protocol.get(1, "/nowhere", credit=0), 0
        with contextlib.suppress(TimeoutError):
            while sent < 100_000_000:
                sent += agent.sock.send(frame[sent % len(frame) :])
        assert agent.memory() < 1_000_000
        agent.sock.settimeout(10)
        for _ in range(sent // len(frame)):
            assert isinstance(agent.next(), Failed)

    def test_more_stdin_than_credit(self, agent: Agent) -> None:
        agent.send(run(1, "sleep 1000", stdin=True))
        agent.send(*(protocol.data(1, bytes(60000)) for _ in range(3)))
        failed = agent.end_of(1)
        assert isinstance(failed, Failed)
        assert failed.error == errno.EPROTO
        agent.settle(lambda: agent.children() == [])

    def test_stdin_that_nobody_reads_any_more(self, agent: Agent) -> None:
        agent.send(run(1, "exec <&-; echo; exec sleep 1000", stdin=True))
        agent.until(lambda e: isinstance(e, Data))
        agent.send(protocol.data(1, b"y"))
        assert agent.until(lambda e: isinstance(e, Credit) and e.closed) == Credit(1, 0, True)

    def test_a_thousand_operations_leave_nothing(self, agent: Agent) -> None:
        agent.send(run(1, "echo 1"))
        assert agent.output_of(1) == b"1\n"
        agent.hello()
        before = agent.descriptors()
        for number in range(2, 1000):
            agent.send(protocol.execute(number, ["/bin/true"], credit=MANY))
            agent.send(protocol.get(number + 1000, "/nowhere", credit=MANY))
            agent.end_of(number)
        agent.hello()
        assert agent.descriptors() == before
        assert agent.children() == []
        assert agent.memory() < 1_000_000


class TestTheMachine:
    """Under a bounding set without the capabilities, so that each says that it may not."""

    @pytest.mark.parametrize(
        ("request_", "text"),
        [
            (protocol.personalise(1, entropy=bytes(32)), "reseed the kernel's random numbers"),
            (protocol.personalise(1, time_ns=1), "set the clock"),
            (protocol.personalise(1, hostname="x"), "set the hostname"),
        ],
    )
    def test_says_what_failed(self, agent: Agent, request_: bytes, text: str) -> None:
        agent.send(request_)
        assert agent.end_of(1) == Failed(1, errno.EPERM, f"{text}: Operation not permitted")

    def test_nothing_to_personalise(self, agent: Agent) -> None:
        agent.send(protocol.personalise(1))
        assert agent.end_of(1) == Done(1)

    def test_sync(self, agent: Agent) -> None:
        agent.sock.settimeout(60)
        agent.send(protocol.sync(1), run(2, "exit 2"))
        assert agent.end_of(2) == Exit(2, 2, False)
        assert agent.end_of(1) == Done(1)


class TestTheEnd:
    def test_of_the_channel_ends_everything(self, agent: Agent, tmp_path: Path) -> None:
        tree = tmp_path / "tree"
        agent.send(
            run(1, "sleep 1000 & echo; sleep 1000"),
            protocol.put(2, str(tree)),
            Entry(2, "d", "", 0o755).pack(),
            Entry(2, "d", "below", 0o755).pack(),
            Entry(2, "l", "below/link", 0, target="/etc").pack(),
            Entry(2, "f", "below/file", 0o644).pack(),
            protocol.data(2, b"half"),
        )
        agent.until(lambda e: isinstance(e, Data))
        (child,) = agent.children()
        agent.settle(lambda: any(tmp_path.rglob("file")))
        agent.sock.close()
        assert agent.child.wait(5) == 0
        agent.settle(lambda: agent.living(child) == [])
        assert list(tmp_path.iterdir()) == []
        assert Path("/etc/passwd").exists()

    def test_in_the_middle_of_a_frame(self, agent: Agent) -> None:
        agent.send(run(1, "exit 1")[:-5])
        agent.sock.close()
        assert agent.child.wait(5) == 0

    def test_of_the_agent_is_its_commands_end(self, agent: Agent) -> None:
        agent.send(run(1, "echo; exec sleep 1000"))
        agent.until(lambda e: isinstance(e, Data))
        (child,) = agent.children()
        agent.child.kill()
        agent.settle(lambda: agent.living(child) == [])
