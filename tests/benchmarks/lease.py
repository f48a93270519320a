"""A board that is free, taken and given back: of this host's lab, and of a labgrid coordinator."""

from __future__ import annotations

import time
from collections.abc import Callable

from pytest_hil.lab.labgrid import LabgridLab
from pytest_hil.lab.lease import Lab
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_most, line, milliseconds
from tests.lab.labgrid_site import Labgrid


def measure(context: Context) -> list[Line]:
    root = context.scratch / "lease"
    root.mkdir()
    local = Lab(root / "lab")
    times = context.times(300, 100)
    context.tell(f"lease: {times} of this host")
    here = _times(lambda: local.acquire(["board"], purpose="benchmark").release(), times)
    with Labgrid(root) as labgrid:
        labgrid.place("board")

        def by_client() -> None:
            labgrid.client("-p", "board", "acquire")
            labgrid.client("-p", "board", "release")

        with LabgridLab(labgrid.address, directory=root / "lab") as shared:
            context.tell(f"lease: {times} of a coordinator")
            there = _times(lambda: shared.acquire(["board"]).release(), times)
        peer = _times(by_client, context.times(7, 3))
    return [
        line("lease", milliseconds(here), "ms", at_most(5)),
        line("lease-labgrid", milliseconds(there), "ms", peer=milliseconds(peer)),
    ]


def _times(act: Callable[[], None], number: int) -> list[float]:
    found = []
    act()
    for _ in range(number):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return found
