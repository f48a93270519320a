"""Many machines, one after the other and at once: nothing is left, nothing grows."""

from __future__ import annotations

import gc
import os
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.bench import Bench
from pytest_hil.errors import OutputTooLarge
from pytest_hil.qemu import runtime

pytestmark = [pytest.mark.machine, pytest.mark.slow, pytest.mark.alone]

MiB = 2**20


def holdings(bench: Bench) -> dict[str, int]:
    mine = runtime.base() / runtime.owner_name()
    return {
        "machines": sum(1 for one in bench.room.occupants() if one.owner == os.getpid()),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "directories": len(list(mine.glob("*"))) if mine.exists() else 0,
        "places": len(list((runtime.base() / "machines").glob(f"{os.getpid()}.*"))),
    }


def available() -> int:
    """The host's free memory, in bytes."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no MemAvailable")


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# All 1000 with HIL_ENDURANCE=1.
CLONES = 1000 if os.environ.get("HIL_ENDURANCE") else 400


def test_many_clones_leave_nothing(bench: Bench) -> None:
    target = bench.target("qemu")
    for _ in range(20):
        bench.open(target).close()
    gc.collect()
    before, memory, mine = holdings(bench), available(), resident()
    for number in range(CLONES):
        guest = bench.open(target)
        assert guest.origin.how == "clone"
        assert guest.run(f"echo {number}").stdout == f"{number}\n"
        guest.close()
    gc.collect()
    assert holdings(bench) == before
    assert resident() - mine < 32 * MiB
    # Others use this host too: wait a while for it to calm down before calling it a loss.
    deadline = time.monotonic() + 60
    while memory - available() > 256 * MiB and time.monotonic() < deadline:
        time.sleep(1)
    assert memory - available() < 256 * MiB


def test_sixteen_at_once(bench: Bench) -> None:
    target = bench.target("qemu")
    bench.open(target).close()
    with ThreadPoolExecutor(16) as pool:
        guests = list(pool.map(lambda _n: bench.open(target), range(16)))
    try:
        with ThreadPoolExecutor(16) as pool:
            names = list(pool.map(lambda one: one.run("hostname").stdout, guests))
        assert len(set(names)) == 16
    finally:
        for guest in guests:
            guest.close()


def test_a_console_that_says_more_than_is_kept(bench: Bench, tmp_path: Path) -> None:
    """All of it is on disk, little of it in memory, and expect finds the end.

    An emulated UART says 0.2 MB a second; 200 MB at full speed: tests/console/test_flood.py.
    """
    guest = bench.open(bench.target("qemu"))

    def say_much(end: str) -> int:
        guest.run(f"(yes 0123456789abcdef | head -c 6000000; echo {end}) > /dev/ttyS0 &")
        guest.console.expect(end, timeout=300)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        guest.record(tmp_path)
        # The first two fill what is kept; from then on nothing may grow.
        say_much("the first end")
        full = say_much("the second end")
        assert say_much("the third end") - full < 2 * MiB
        assert len(guest.console.text()) < 9_000_000
        assert (tmp_path / "console.log").stat().st_size > 18_000_000
        assert guest.run("echo still here").stdout == "still here\n"
    finally:
        tracemalloc.stop()
        guest.close()


def test_a_command_that_prints_200_megabytes(bench: Bench) -> None:
    guest = bench.open(bench.target("qemu"))
    try:
        with pytest.raises(OutputTooLarge, match="67108864"):
            guest.run("yes 0123456789abcdef | head -c 200000000", timeout=300)
        done = guest.run(
            "yes 0123456789abcdef | head -c 200000000", timeout=300, max_output=200_000_000
        )
        assert len(done.stdout) == 200_000_000
    finally:
        guest.close()
