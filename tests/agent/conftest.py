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
from pytest_hil.agent.frames import Decoder
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

    def next(self) -> Event:
        """The oldest event that nobody has taken."""
        while not self.events:
            self._receive()
        return self.events.pop(0)

    def until(self, wanted: Callable[[Event], bool]) -> Event:
        """The first event like that; the others stay."""
        looked_at = 0
        while True:
            for number in range(looked_at, len(self.events)):
                if wanted(self.events[number]):
                    return self.events.pop(number)
            looked_at = len(self.events)
            self._receive()

    def _receive(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError("the agent closed the channel")
        self.events += [protocol.parse(frame) for frame in self.decoder.feed(data)]

    def output_of(self, operation: int) -> bytes:
        """What a command prints until it ends."""
        parts = []
        while not isinstance(event := self.next(), protocol.Exit) or event.operation != operation:
            if isinstance(event, Data) and event.operation == operation:
                parts.append(event.payload)
        return b"".join(parts)

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

    def living(self, group: int) -> list[int]:
        """The processes of a group that have not ended."""
        living = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(") ")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[2]) == group and fields[0] not in "ZX":
                living.append(int(stat.parent.name))
        return living

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
