"""What all benchmarks share: one bench, one peer, a scratch directory, how often to measure."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from pytest_hil.bench import Bench, Settings
from pytest_hil.config import QemuTarget
from pytest_hil.qemu.guest import Guest
from tests.benchmarks.peer import Peer

ROOT = Path(__file__).parents[2]

# Benchmarks say themselves what must fit: no machine of theirs waits for another's end.
_UNLIMITED = 2**60


class Context:
    """A context manager; leaving it ends every machine and the peer.

    ``scratch`` is an empty directory. ``tell`` gets a status line of what is being measured.
    """

    def __init__(self, scratch: Path, *, quick: bool, tell: Callable[[str], None]) -> None:
        self.scratch = scratch
        self.quick = quick
        self.tell = tell
        self._exit = contextlib.ExitStack()
        settings = Settings(root=ROOT, memory_budget=_UNLIMITED)
        self.bench = self._exit.enter_context(Bench(settings, progress=tell, say=tell))
        self.target = self.bench.target("qemu")
        self._peer: Peer | None = None

    def times(self, full: int, quick: int) -> int:
        """How often to measure."""
        return quick if self.quick else full

    def ready(self, target: QemuTarget | None = None) -> QemuTarget:
        """A target whose image and template exist, and whose files are in the page cache."""
        target = target or self.target
        with contextlib.closing(self.bench.open(target)) as guest:
            guest.run("true")
        return target

    def fresh(self, target: QemuTarget | None = None) -> tuple[Guest, float]:
        """A new machine that has answered ``run("true")``, and the seconds that took."""
        began = time.perf_counter()
        guest = self.bench.open(target or self.target)
        guest.run("true")
        return guest, time.perf_counter() - began

    @property
    def peer(self) -> Peer:
        """The peer, installed and started when it is first needed."""
        if self._peer is None:
            hardware = self.bench.plan(self.target).hardware
            peer = Peer(hardware, self.bench.cache, self.scratch, tell=self.tell)
            self._peer = self._exit.enter_context(peer)
        return self._peer

    def __enter__(self) -> Context:
        return self

    def __exit__(self, *exc: object) -> None:
        self._exit.close()
