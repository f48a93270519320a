"""64 MiB of random bytes into a guest and out of it; both ends verify a checksum as part of it.

The benchmark compares SHA-256 sums of its own afterwards, outside the time that is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from pytest_hil.errors import TransferError
from pytest_hil.qemu.guest import Guest
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, line

_SIZE = 64 * 2**20
_REMOTE = "/tmp/payload"


def measure_put(context: Context) -> list[Line]:
    return _measure(context, "put", lambda guest, local: guest.put(local, _REMOTE))


def measure_get(context: Context) -> list[Line]:
    return _measure(context, "get", lambda guest, local: guest.get(_REMOTE, local))


def _measure(context: Context, name: str, move: Callable[[Guest, Path], None]) -> list[Line]:
    # /tmp is in the guest's memory, and half of that is the most that a tmpfs takes.
    target = context.ready(context.bench.target("qemu", memory="512M"))
    local = context.scratch / name
    rates = []
    rounds = context.times(7, 3)
    for number in range(rounds):
        context.tell(f"{name}: {number + 1} of {rounds}")
        wanted = _random(local)
        guest, _ = context.fresh(target)
        with contextlib.closing(guest):
            if name == "get":
                guest.put(local, _REMOTE)
                local.unlink()
            began = time.perf_counter()
            move(guest, local)
            rates.append(_SIZE / 1e6 / (time.perf_counter() - began))
            _check(name, wanted, guest, local)
    return [line(name, rates, "MB/s", at_least(50), more_is_better=True)]


def _random(path: Path) -> str:
    data = os.urandom(_SIZE)
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _check(name: str, wanted: str, guest: Guest, local: Path) -> None:
    if name == "put":
        got = guest.run(["sha256sum", _REMOTE], timeout=120).stdout.split()[0]
    else:
        got = hashlib.sha256(local.read_bytes()).hexdigest()
    if got != wanted:
        raise TransferError(f"{name}: its sha256 is {got} on arrival, was {wanted}")
