"""The real agent, compiled for this machine, on one end of a socket pair."""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.agent import build, protocol
from pytest_hil.agent.frames import Decoder, Frame
from pytest_hil.agent.protocol import Data, Event, HelloOk, Ready
from pytest_hil.process import Process

NONCE = bytes(range(16))

# The agent may be asked to set the clock or to switch off: not on this machine.
HARMLESS = ["setpriv", "--bounding-set", "-sys_boot,-sys_time,-sys_admin"]


class Agent:
    """A running agent, spoken to in bytes."""

    def __init__(self, sock: socket.socket, child: Process) -> None:
        self.sock = sock
        self.child = child
        self.events: list[Event] = []
        self.decoder = Decoder()
        sock.settimeout(10)

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def frames(self) -> list[Frame]:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError
        return self.decoder.feed(data)

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event like that; the ones before it, and it, go to ``events``."""
        while True:
            for number, event in enumerate(self.events):
                if wanted(event):
                    del self.events[: number + 1]
                    return event
            self.events += [protocol.parse(frame) for frame in self.frames()]

    def end_of(self, operation: int) -> Event:
        """How an operation ended."""
        ends = (protocol.Exit, protocol.Done, protocol.Failed)
        return self.until(lambda e: isinstance(e, ends) and e.operation == operation)

    def hello(self, nonce: bytes = NONCE) -> HelloOk:
        self.send(protocol.hello(nonce))
        answer = self.until(lambda e: isinstance(e, HelloOk) and e.nonce == nonce)
        assert isinstance(answer, HelloOk)
        return answer

    def memory(self) -> int:
        """Bytes of the agent's own memory (RssAnon)."""
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.child.pid}/fd"))  # noqa: PTH208

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def settle(self, condition: Callable[[], bool]) -> None:
        """Wait for something that only /proc tells."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture(scope="session")
def agent_command() -> list[str]:
    arch = {"armv7l": "arm"}.get(platform.machine(), platform.machine())
    return [*(HARMLESS if os.geteuid() == 0 else []), str(build.binary(arch))]


@pytest.fixture
def fresh_agent(agent_command: list[str]) -> Iterator[Agent]:
    """An agent that has said READY and not been greeted."""
    ours, theirs = socket.socketpair()
    with (
        theirs,
        process.start(
            [*agent_command, "--fd", str(theirs.fileno())], pass_fds=[theirs.fileno()]
        ) as child,
    ):
        theirs.close()
        with ours:
            agent = Agent(ours, child)
            agent.until(lambda e: isinstance(e, Ready))
            yield agent


@pytest.fixture
def agent(fresh_agent: Agent) -> Agent:
    """An agent in a session."""
    fresh_agent.hello()
    return fresh_agent


@pytest.fixture
def output_of(agent: Agent) -> Callable[[int], bytes]:
    """Runs the events of an operation to its end and gives its stdout."""

    def collect(operation: int) -> bytes:
        parts: list[bytes] = []

        def ended(event: Event) -> bool:
            if isinstance(event, Data) and event.operation == operation:
                parts.append(event.payload)
            return isinstance(event, protocol.Exit) and event.operation == operation

        agent.until(ended)
        return b"".join(parts)

    return collect
