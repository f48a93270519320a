"""When the agent, or the way to it, goes wrong: the other side is bytes that we write."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import Decoder, Frame, FrameType, pack
from pytest_hil.agent.protocol import HelloOk
from pytest_hil.errors import (
    ChannelLost,
    InfrastructureError,
    MachineError,
    OutcomeUnknown,
    ProtocolError,
)
from pytest_hil.process import Process
from pytest_hil.shell.agent import AgentInfo, AgentShell


class Peer:
    """The other end of the channel: says what the test wants it to say."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(10)
        self.decoder = Decoder()
        self.waiting: list[Frame] = []

    def next(self) -> Frame:
        while not self.waiting:
            self.waiting += self.decoder.feed(self.sock.recv(65536))
        return self.waiting.pop(0)

    def greet(self, version: int = protocol.VERSION) -> None:
        hello = self.next()
        assert hello.type == FrameType.HELLO
        self.sock.sendall(HelloOk(hello.payload[:16], version, "build", "riscv64").pack())


Background = Callable[..., "Future[object]"]


@pytest.fixture
def background() -> Iterator[Background]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda function, *args, **more: pool.submit(function, *args, **more)


@pytest.fixture
def lost_with() -> list[InfrastructureError]:
    return []


@pytest.fixture
def pair(lost_with: list[InfrastructureError]) -> Iterator[tuple[Peer, AgentShell]]:
    ours, theirs = socket.socketpair()
    with theirs, AgentShell(ours, name="guest", on_lost=lost_with.append) as shell:
        yield Peer(theirs), shell


@pytest.fixture
def peer(pair: tuple[Peer, AgentShell], background: Background) -> Peer:
    greeted = background(pair[1].hello, 10)
    pair[0].greet()
    greeted.result()
    return pair[0]


@pytest.fixture
def guest(pair: tuple[Peer, AgentShell]) -> AgentShell:
    return pair[1]


class TestHello:
    def test_says_who_is_there(self, pair: tuple[Peer, AgentShell], background: Background) -> None:
        peer, shell = pair
        info = background(shell.hello, 10)
        peer.greet()
        assert info.result() == AgentInfo(protocol.VERSION, "build", "riscv64")
        assert shell.reason is None

    def test_stale_bytes_are_discarded(
        self, pair: tuple[Peer, AgentShell], background: Background
    ) -> None:
        peer, shell = pair
        peer.sock.sendall(pack(FrameType.EXIT, 1, bytes(4)) + pack(3, 2, bytes(60000))[:30000])
        info = background(shell.hello, 10)
        peer.greet()
        assert info.result()

    def test_is_repeated_with_padding(
        self, pair: tuple[Peer, AgentShell], background: Background
    ) -> None:
        """As for an agent that was frozen inside a frame, to which the first is file content."""
        peer, shell = pair
        info = background(shell.hello, 10)
        first = peer.next()
        second = peer.next()
        assert first == second
        assert peer.decoder.skipped > 65536
        peer.sock.sendall(HelloOk(first.payload[:16], 1, "build", "arm").pack() * 2)
        assert info.result()
        done = background(shell.run, "true")
        peer.sock.sendall(pack(FrameType.EXIT, peer.next().operation, bytes(4)))
        assert done.result()

    def test_nobody_answers(self, pair: tuple[Peer, AgentShell]) -> None:
        with pytest.raises(ChannelLost, match=r"did not answer within 0\.1 s"):
            pair[1].hello(0.1)

    def test_nobody_reads(self, pair: tuple[Peer, AgentShell]) -> None:
        for _ in range(10):
            with pytest.raises(ChannelLost):
                pair[1].hello(0.01)

    def test_another_version(self, pair: tuple[Peer, AgentShell], background: Background) -> None:
        peer, shell = pair
        info = background(shell.hello, 10)
        peer.greet(version=99)
        with pytest.raises(ProtocolError, match="version 99 of the protocol"):
            info.result()
        with pytest.raises(ChannelLost):
            shell.run("true")

    def test_nothing_is_sent_before_it(self, pair: tuple[Peer, AgentShell]) -> None:
        with pytest.raises(ChannelLost, match="nothing can be asked before hello"):
            pair[1].run("true")

    def test_again_ends_what_was_under_way(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        running = background(guest.run, "sleep 1000")
        peer.next()
        info = background(guest.hello, 10)
        peer.greet()
        assert info.result()
        with pytest.raises(OutcomeUnknown, match="a new session was begun"):
            running.result()

    def test_costs_next_to_nothing(self, shell: AgentShell) -> None:
        before = time.process_time()
        for _ in range(20):
            shell.hello(10)
        assert (time.process_time() - before) / 20 < 0.002


class TestLost:
    def test_while_a_command_runs(
        self,
        peer: Peer,
        guest: AgentShell,
        background: Background,
        lost_with: list[InfrastructureError],
    ) -> None:
        running = background(guest.run, "sleep 1000")
        peer.next()
        peer.sock.close()
        with pytest.raises(OutcomeUnknown, match=r"'sleep 1000': .* the channel was closed"):
            running.result()
        assert guest.lost.wait(5)
        assert isinstance(guest.reason, ChannelLost)
        assert len(lost_with) == 1

    def test_before_a_command(self, peer: Peer, guest: AgentShell) -> None:
        peer.sock.close()
        assert guest.lost.wait(5)
        with pytest.raises(ChannelLost, match="not sent"):
            guest.run("true")
        with pytest.raises(ChannelLost):
            guest.hello(1)

    def test_the_owner_knows_better(self, background: Background) -> None:
        ours, theirs = socket.socketpair()
        died = MachineError("QEMU ended with signal SIGKILL")
        with AgentShell(ours, name="guest", on_lost=lambda _: died) as shell:
            peer = Peer(theirs)
            hello = background(shell.hello, 10)
            peer.greet()
            hello.result()
            running = background(shell.run, "sleep 1000")
            peer.next()
            theirs.close()
            with pytest.raises(MachineError, match="SIGKILL"):
                running.result()

    def test_closing_is_not_losing(
        self, guest: AgentShell, lost_with: list[InfrastructureError]
    ) -> None:
        guest.close()
        assert lost_with == []

    def test_fail_ends_all_that_waits(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        running = [background(guest.run, f"sleep {n}", timeout=None) for n in range(3)]
        for _ in running:
            peer.next()
        guest.fail(MachineError("the kernel panicked"))
        for one in running:
            with pytest.raises(MachineError, match="the kernel panicked"):
                one.result()
        with pytest.raises(ChannelLost, match="the kernel panicked"):
            guest.run("true")
        again = background(guest.hello, 10)
        peer.greet()
        assert again.result()

    def test_fail_ends_a_write_that_waits(
        self,
        peer: Peer,
        guest: AgentShell,
        background: Background,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        large = tmp_path_factory.mktemp("large") / "file"
        large.write_bytes(bytes(5_000_000))
        putting = background(guest.put, large, "/x")
        peer.next()
        guest.fail(MachineError("the kernel panicked"))
        with pytest.raises(MachineError, match="the kernel panicked"):
            putting.result(5)

    def test_a_real_agent_that_is_killed(
        self, agent: Process, shell: AgentShell, background: Background
    ) -> None:
        running = background(shell.run, "echo; sleep 1000")
        shell.run("true")
        os.kill(agent.pid, signal.SIGKILL)
        with pytest.raises(OutcomeUnknown):
            running.result()
        assert shell.lost.wait(5)

    def test_close_ends_what_waits(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        running = background(guest.run, "sleep 1000")
        peer.next()
        guest.close()
        with pytest.raises(OutcomeUnknown):
            running.result()
        guest.close()

    def test_nothing_is_left(self) -> None:
        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))  # noqa: PTH208

        before = descriptors(), threading.active_count()
        for _ in range(20):
            ours, theirs = socket.socketpair()
            with theirs, AgentShell(ours, name="guest"):
                pass
        assert (descriptors(), threading.active_count()) == before


class TestNonsense:
    @pytest.mark.parametrize(
        ("answer", "text"),
        [
            (b"login: " * 10, "no frame"),
            (pack(99, 1), "a frame of type 99"),
            (pack(FrameType.EXIT, 1, b""), "malformed frame of type 35"),
            (pack(FrameType.READY, 0, b"\1\0build\0arch\0"), "the agent was restarted"),
        ],
    )
    def test_ends_the_session(
        self, peer: Peer, guest: AgentShell, background: Background, answer: bytes, text: str
    ) -> None:
        running = background(guest.run, "sleep 1000")
        peer.next()
        peer.sock.sendall(answer)
        with pytest.raises(OutcomeUnknown, match=text):
            running.result()
        assert isinstance(guest.reason, ProtocolError)
        again = background(guest.hello, 10)
        peer.greet()
        assert again.result()

    def test_more_than_there_was_credit_for(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        syncing = background(guest.sync)
        peer.sock.sendall(pack(FrameType.DATA, peer.next().operation, b"x"))
        with pytest.raises(OutcomeUnknown, match="more than it may"):
            syncing.result()

    def test_frames_for_nobody_are_ignored(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        peer.sock.sendall(pack(FrameType.EXIT, 77, bytes(4)) + pack(FrameType.DATA, 78, b"x", 1))
        running = background(guest.run, "exit 3", check=False)
        number = peer.next().operation
        peer.sock.sendall(pack(FrameType.EXIT, number, struct.pack("<i", 3)))
        done = running.result()
        assert getattr(done, "exit_code", None) == 3

    def test_the_wrong_answer(self, peer: Peer, guest: AgentShell, background: Background) -> None:
        syncing = background(guest.sync)
        peer.sock.sendall(pack(FrameType.EXIT, peer.next().operation, bytes(4)))
        with pytest.raises(ProtocolError, match="sync: unexpected Exit"):
            syncing.result()


class TestTheMachine:
    def test_personalise_is_one_round_trip(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        asked = background(
            guest.personalise,
            entropy=bytes(range(32)),
            time_ns=1_700_000_000_000_000_000,
            hostname="clone",
            machine_id="0" * 32,
        )
        frame = peer.next()
        assert frame.type == FrameType.PERSONALISE
        assert frame.payload == (
            b"\x0f"
            + struct.pack("<QH", 1_700_000_000_000_000_000, 32)
            + bytes(range(32))
            + b"clone\0"
            + b"0" * 32
            + b"\0"
        )
        peer.sock.sendall(pack(FrameType.DONE, frame.operation))
        assert asked.result() is None

    def test_says_what_failed(self, shell: AgentShell) -> None:
        with pytest.raises(InfrastructureError, match="set the clock: Operation not permitted"):
            shell.set_clock(1)

    def test_no_answer(self, peer: Peer, guest: AgentShell) -> None:
        with pytest.raises(OutcomeUnknown, match=r"no answer within 0\.05 s"):
            guest.reseed(bytes(32), timeout=0.05)

    def test_too_little_entropy_is_refused(self, guest: AgentShell, peer: Peer) -> None:
        with pytest.raises(ValueError, match="32 to 512"):
            guest.reseed(bytes(8))

    def test_sync(self, shell: AgentShell) -> None:
        shell.sync()

    def test_power_off_that_takes_the_channel_with_it(
        self, peer: Peer, guest: AgentShell, background: Background
    ) -> None:
        going = background(guest.power_off)
        assert peer.next().type == FrameType.POWER
        peer.sock.close()
        assert going.result() is None

    def test_reboot(self, peer: Peer, guest: AgentShell, background: Background) -> None:
        going = background(guest.reboot)
        frame = peer.next()
        assert (frame.type, frame.payload) == (FrameType.POWER, b"\1")
        peer.sock.sendall(pack(FrameType.DONE, frame.operation))
        assert going.result() is None
