"""Transfers through an exporter over loopback TCP: ours, and that of the package ``usbip``.

The same client for both, in this process; each exporter in its own.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from pytest_hil import process
from pytest_hil.errors import InfrastructureError
from pytest_hil.usbip.messages import (
    DEVICE_SIZE,
    OP_SIZE,
    URB_SIZE,
    Device,
    Direction,
    ReqImport,
    Submit,
)
from tests.benchmarks import peer
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, line

REQUIREMENT = "usbip==0.7.0"
DEPTH = 32
SIZE = 64
MiB = 2**20
# Transfers of 1 MiB that are under way together.
OUT_DEPTH = 4

_HERE = Path(__file__).parent


class Client:
    """An importer that does nothing but ask and count, as fast as it can."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(ReqImport("1-1").pack())
        answer = self._socket.recv(OP_SIZE + DEVICE_SIZE, socket.MSG_WAITALL)
        self._devid = Device.parse(answer[OP_SIZE:]).devid
        self._number = 0
        configure = Submit(
            self._next(), self._devid, Direction.OUT, 0, 0, bytes([0, 9, 1, 0, 0, 0, 0, 0])
        )
        self._socket.sendall(configure.pack())
        self._expect(URB_SIZE)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _expect(self, count: int) -> None:
        while count:
            got = len(self._socket.recv(min(count, MiB)))
            if not got:
                raise InfrastructureError("the exporter closed the connection")
            count -= got

    def read(self, count: int) -> float:
        """Transfers a second: IN of 64 bytes, 32 in flight."""
        asks = [
            Submit(self._next(), self._devid, Direction.IN, 4, SIZE).pack() for _ in range(count)
        ]
        out = memoryview(b"".join(asks))
        answer = URB_SIZE + SIZE
        began = time.perf_counter()
        self._socket.sendall(out[: DEPTH * URB_SIZE])
        sent, received = DEPTH, 0
        while received < count * answer:
            got = len(self._socket.recv(MiB))
            if not got:
                raise InfrastructureError("the exporter closed the connection")
            received += got
            more = min(received // answer + DEPTH, count)
            self._socket.sendall(out[sent * URB_SIZE : more * URB_SIZE])
            sent = more
        return count / (time.perf_counter() - began)

    def write(self, count: int) -> float:
        """GB a second: OUT of 1 MiB."""
        asks = [
            Submit(self._next(), self._devid, Direction.OUT, 4, MiB).pack() for _ in range(count)
        ]
        data = bytes(MiB)
        began = time.perf_counter()
        for number, ask in enumerate(asks):
            self._socket.sendall(ask)
            self._socket.sendall(data)
            if number >= OUT_DEPTH:
                self._expect(URB_SIZE)
        self._expect(min(OUT_DEPTH, count) * URB_SIZE)
        return count * MiB / (time.perf_counter() - began) / 1e9

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def _exporter(argv: list[str]) -> Iterator[int]:
    """The port of an exporter in a process of its own."""
    with process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        said = running.stdout.readline()
        if not said:
            raise InfrastructureError(f"{argv[1]} did not start")
        yield int(said)


@contextlib.contextmanager
def _both(context: Context, ready: int) -> Iterator[tuple[int, int]]:
    """The ports of ours and of the peer's; ``ready``: messages that the peer has waiting."""
    context.tell(f"{REQUIREMENT}: making its environment")
    theirs = peer.environment(context.bench.cache, context.tell, REQUIREMENT) / "bin" / "python"
    with (
        _exporter([sys.executable, "-m", "tests.benchmarks.usbip_ours"]) as ours,
        _exporter([str(theirs), str(_HERE / "usbip_peer.py"), str(ready)]) as other,
    ):
        yield ours, other


def measure(context: Context) -> list[Line]:
    rounds, count = context.times(15, 3), 20_000
    ours: list[float] = []
    theirs: list[float] = []
    with _both(context, count) as (port, other):
        for number in range(-1, rounds):
            context.tell(f"urb: {number + 1} of {rounds}")
            for where, found in ((port, ours), (other, theirs)):
                with contextlib.closing(Client(where)) as client:
                    found.append(client.read(count))
    bounds = (at_least(1.5, "ratio"),)
    return [line("urb", ours[1:], "URB/s", *bounds, peer=theirs[1:], more_is_better=True)]


def measure_out(context: Context) -> list[Line]:
    rounds, count = context.times(15, 3), 300
    ours: list[float] = []
    theirs: list[float] = []
    with _both(context, 0) as (port, other):
        for number in range(-1, rounds):
            context.tell(f"urb-out: {number + 1} of {rounds}")
            for where, found in ((port, ours), (other, theirs)):
                with contextlib.closing(Client(where)) as client:
                    found.append(client.write(count))
    return [line("urb-out", ours[1:], "GB/s", at_least(1.5), peer=theirs[1:], more_is_better=True)]
