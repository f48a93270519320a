"""How many machines may live at once: as many as the host's memory allows.

Every machine of this user, whichever process made it, has a file that says how much memory it
may take, named after its QEMU's pid and start time. Who wants more than is left waits for one of
those processes to end (pidfd), so a place is free the moment its QEMU is gone, however it went.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.config import MiB
from pytest_hil.errors import NoMemory, NoRoom
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu import runtime

_CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Occupant:
    """One live machine. ``memory`` in bytes; ``owner`` is the pid of the process that made it."""

    pid: int
    started: int
    memory: int
    name: str
    owner: int
    owner_started: int | None


def host_memory() -> int:
    """What this host has for us, in bytes: its memory or its control group's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in _CGROUP_LIMITS:
        with contextlib.suppress(OSError, ValueError):
            total = min(total, int(path.read_text()))
    return total


def default_budget() -> int:
    """Four fifths of the host's memory: the rest is for the tests and the page cache."""
    return host_memory() * 4 // 5


class Room:
    """The places of this user's machines. ``budget`` in bytes."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = default_budget() if budget is None else budget
        self._directory = runtime.base() / "machines"
        self._directory.mkdir(mode=0o700, exist_ok=True)

    def check(self, name: str, memory: int) -> None:
        """NoMemory when a machine could never fit, however long it waited."""
        if memory > self.budget:
            raise NoMemory(
                f"the machine {name} wants {memory // MiB} MB of memory; all machines together "
                f"may take {self.budget // MiB} MB here",
                mend="ask for less memory=, or allow more: hil_memory_budget in the pytest "
                "configuration (PYTEST_HIL_MEMORY_BUDGET=…)",
            )

    def start(
        self,
        name: str,
        memory: int,
        launch: Callable[[], process.Process],
        *,
        timeout: float,
        progress: Progress = silent,
        free_idle: Callable[[], bool] = lambda: False,
    ) -> process.Process:
        """Wait for a place, start the machine's process in it.

        ``free_idle`` gives up a machine that is only kept ready; it says whether there was one.
        Raises NoMemory when there is no place within ``timeout`` seconds (0: do not wait).
        """
        self.check(name, memory)
        deadline = time.monotonic() + timeout
        while True:
            with self._locked():
                others = self._living()
                if sum(other.memory for other in others) + memory <= self.budget:
                    child = launch()
                    self._enter(child, name, memory)
                    return child
            if free_idle():
                continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._full(name, memory, others, timeout)
            used = sum(other.memory for other in others)
            progress(
                f"waiting for memory: {used // MiB} of {self.budget // MiB} MB are taken by "
                f"{len(others)} machines"
            )
            _wait_for_one([other.pid for other in others], left)

    def leave(self, child: process.Process) -> None:
        """The machine's process has ended: its place is free."""
        for path in self._directory.glob(f"{child.pid}.*"):
            path.unlink(missing_ok=True)

    def occupants(self) -> list[Occupant]:
        """The machines that live now."""
        with self._locked():
            return self._living()

    def reap(self) -> list[Occupant]:
        """End the machines whose makers are gone.

        They die with their makers by themselves; one that was made in its maker's very last
        millisecond may not have.
        """
        orphans = [
            one for one in self.occupants() if process.start_time(one.owner) != one.owner_started
        ]
        for orphan in orphans:
            process.kill_pid(orphan.pid, started=orphan.started)
        return orphans

    def _enter(self, child: process.Process, name: str, memory: int) -> None:
        started = process.start_time(child.pid)
        if started is None:
            return  # it has ended already: whoever waits for it will see
        owner = os.getpid()
        facts = {
            "memory": memory,
            "name": name,
            "owner": owner,
            "owner_started": process.start_time(owner),
        }
        try:
            (self._directory / f"{child.pid}.{started}").write_text(json.dumps(facts))
        except OSError as error:
            child.end()
            raise NoRoom(
                f"the machine {name} could not be written down in {self._directory}: "
                f"{error.strerror}",
                mend="free some disk, or set TMPDIR to another directory",
            ) from error

    def _living(self) -> list[Occupant]:
        """Read all places; forget those of machines that ended."""
        found = []
        for path in self._directory.iterdir():
            pid, _, started = path.name.partition(".")
            if not started:
                continue
            try:
                if not runtime.is_alive(path.name):
                    raise ValueError(path.name)
                found.append(Occupant(int(pid), int(started), **json.loads(path.read_text())))
            except (ValueError, TypeError):
                path.unlink(missing_ok=True)
            except OSError:
                continue  # its maker removed it just now
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        fd = os.open(self._directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _full(self, name: str, memory: int, others: list[Occupant], timeout: float) -> NoMemory:
        rows = "\n".join(
            f"    {one.memory // MiB:>6} MB  {one.name}  (QEMU {one.pid} of process {one.owner})"
            for one in sorted(others, key=lambda one: -one.memory)[:10]
        )
        return NoMemory(
            f"no memory for the machine {name} ({memory // MiB} MB) came free within "
            f"{timeout:g} s; {self.budget // MiB} MB are taken by {len(others)} machines:\n{rows}",
            mend="run fewer tests at once (-n), stop what `pytest-hil vm list` shows, "
            "or allow more: hil_memory_budget",
        )


def _wait_for_one(pids: list[int], timeout: float) -> None:
    """Until one of the processes has ended, or ``timeout`` seconds are over."""
    fds = []
    poll = select.poll()
    try:
        for pid in pids:
            try:
                fds.append(os.pidfd_open(pid))
            except ProcessLookupError:
                return
            poll.register(fds[-1], select.POLLIN)
        # Somebody may come and go while we look at those that were here: look again in a while.
        poll.poll(min(timeout, 10) * 1000)
    finally:
        for fd in fds:
            os.close(fd)
