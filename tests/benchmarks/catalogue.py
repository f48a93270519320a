"""All benchmarks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.benchmarks import (
    alive,
    flat,
    fresh,
    lab,
    lease,
    load,
    merge,
    overhead,
    prepared,
    run,
    scan,
    session,
    stick,
    swarm,
    transfer,
    urb,
)
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line


@dataclass(frozen=True, slots=True)
class Benchmark:
    """``measure`` returns one line or more; the first has the benchmark's name."""

    name: str
    what: str
    measure: Callable[[Context], list[Line]]


ALL = (
    Benchmark("fresh", "nothing to the first answered command; peer: labgrid", fresh.measure),
    Benchmark("prepared", "the same for a test, after one of 100 ms", prepared.measure),
    Benchmark("run", "one command; peer: labgrid, over the console", run.measure),
    Benchmark("put", "64 MiB into a guest, verified", transfer.measure_put),
    Benchmark("get", "64 MiB out of a guest, verified", transfer.measure_get),
    Benchmark("swarm", "16 machines at once, and the memory of each", swarm.measure),
    Benchmark("alive", "the memory that 64 live machines take", alive.measure),
    Benchmark("session", "300 tests with fresh machines, on two workers", session.measure),
    Benchmark("urb", "64-byte IN transfers, 32 in flight; peer: the package usbip", urb.measure),
    Benchmark("urb-out", "1 MiB OUT transfers; peer: the package usbip", urb.measure_out),
    Benchmark("stick", "reading a stick in a guest; peer: QEMU's usb-storage", stick.measure),
    Benchmark("lab", "12 tests of 0.5 s on two boards; peer: labgrid", lab.measure),
    Benchmark("lease", "a board taken and given back; peer: labgrid's client", lease.measure),
    Benchmark("merge", "the coverage of four workers; peer: gcovr", merge.measure),
    Benchmark(
        "scan", "console text looked through for crashes; peer: a regex a line", scan.measure
    ),
    Benchmark("overhead", "detection, transcripts, events; peer: none of them", overhead.measure),
    Benchmark("flat", "what 2,000 tests leave in memory; peer: empty tests", flat.measure),
    Benchmark("load", "a run with no test for the plugin; peer: pytest alone", load.measure),
)
