"""A look at the lab: all of it as it is, behind its gate, with what is dead taken away."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from pytest_hil.lab import queue, registry
from pytest_hil.lab.locks import Bell, Lock, is_held, ring
from pytest_hil.lab.queue import Board, Plan, Waiter
from pytest_hil.lab.registry import Holder, Registry, Reservation, Ticket

_UNKNOWN = Holder("somebody", "?", 0, "", "the registry does not know them", 0.0)


def bells(directory: Path) -> Path:
    """Where the FIFOs of those who wait are."""
    return directory / "bells"


@contextlib.contextmanager
def at(directory: Path, mode: int, names: Sequence[str] | None) -> Iterator[Look]:
    """Look at a lab and some of its boards (None: all), alone.

    What was changed is kept unless it raises. Raises OSError, LabError.
    """
    _make(directory, mode)
    gate = Lock.take(directory / "gate.lock", wait=True)
    assert gate is not None  # it waits for ever, which is about a millisecond
    try:
        file = directory / "registry.sqlite"
        if not file.exists():
            # Who waited by one that was lost must say so again.
            for path in bells(directory).iterdir():
                ring(path)
        with registry.opened(file) as rows:
            yield Look(directory, rows, names)
    finally:
        gate.free()


class Look:
    """What there is now. Changes go to the registry, and by :meth:`done` to those who wait."""

    def __init__(self, directory: Path, rows: Registry, names: Sequence[str] | None) -> None:
        self.registry = rows
        self._directory = directory
        self.leases = rows.leases()
        self.tickets = {one.waiter.number: one for one in rows.tickets()}
        self.reservations = rows.reservations()
        self._before = self.plans()
        self.names = {*self.leases, *self.reservations, *self._wanted(), *(names or ())}
        if names is None:
            self.names |= {path.stem for path in self._boards.glob("*.lock")}
        self._reap_tickets()
        self._reap_leases()
        now = time.time()
        for one in [one for one in self.reservations.values() if one.until <= now]:
            self.end_reservation(one, "expired")

    @property
    def _boards(self) -> Path:
        return self._directory / "boards"

    def _wanted(self) -> set[str]:
        return {name for one in self.tickets.values() for name in one.waiter.wants}

    def _reap_leases(self) -> None:
        """The lock decides: who has none has no board, and who has one has it."""
        for name in self.names:
            path = self._boards / f"{name}.lock"
            if not is_held(path):
                if (holder := self.leases.pop(name, None)) is not None:
                    self.registry.end_lease(name, holder, "lost")
            elif name not in self.leases:
                self.leases[name] = registry.holder_in(path.read_text(errors="replace")) or _UNKNOWN

    def _reap_tickets(self) -> None:
        dead = [one for one in self.tickets.values() if not self._waits(one)]
        for one in dead:
            self.leave(one.waiter.number)
        if dead:
            known = {one.bell for one in self.tickets.values()}
            for path in bells(self._directory).iterdir():
                if path.name not in known and not is_held(path):
                    path.unlink(missing_ok=True)

    def _waits(self, one: Ticket) -> bool:
        """Whether somebody is still there. A child may keep a dead one's lock for a while."""
        if not is_held(bells(self._directory) / one.bell):
            return False
        if one.who.space != str(Path("/proc/self/ns/pid").stat().st_ino):
            return True
        try:
            os.close(os.pidfd_open(one.who.pid))
        except ProcessLookupError:
            return False
        return True

    def plans(self) -> dict[int, Plan]:
        """What each who waits does next."""
        boards = {}
        for name in {*self.leases, *self.reservations}:
            holder, one = self.leases.get(name), self.reservations.get(name)
            boards[name] = Board(
                None if holder is None else holder.process,
                "" if one is None else one.user,
                0.0 if one is None else one.until,
            )
        return queue.plans((one.waiter for one in self.tickets.values()), boards)

    # --- changes ---

    def take(self, board: str, holder: Holder) -> Lock | None:
        """A free board's lock; None when somebody has it who did not come through the gate."""
        lock = Lock.take(self._boards / f"{board}.lock", wait=False)
        if lock is None:
            self.leases[board] = _UNKNOWN
            return None
        try:
            lock.write(json.dumps({"board": board, **asdict(holder)}))
            self.registry.lease(board, holder)
        except BaseException:
            lock.free()
            raise
        self.leases[board] = holder
        return lock

    def give_back(self, board: str, holder: Holder, lock: Lock) -> None:
        self.registry.end_lease(board, holder, "released")
        self.leases.pop(board, None)
        lock.write("")
        lock.free()

    def stay(self, waiter: Waiter, bell: Bell, who: Holder) -> Waiter:
        """Be in the queue; the waiter with its number there."""
        one = self.tickets.pop(waiter.number)
        if not one.bell:
            one = self.registry.queue(waiter, bell.path.name, who)
        self.tickets[one.waiter.number] = one
        return one.waiter

    def leave(self, number: int) -> None:
        self.tickets.pop(number, None)
        self.registry.end_ticket(number)

    def reserve(self, one: Reservation) -> None:
        self.registry.reserve(one)
        self.reservations[one.board] = one

    def end_reservation(self, one: Reservation, what: str = "unreserved") -> None:
        self.registry.end_reservation(one, what)
        del self.reservations[one.board]

    def done(self, me: int = 0) -> None:
        """Wake those for whom something is different now.

        Before it is kept, as we may be killed at any moment: they come to the gate and wait there.
        """
        for number, plan in self.plans().items():
            if number != me and (plan.take is not None or plan != self._before.get(number)):
                ring(bells(self._directory) / self.tickets[number].bell)


def _make(directory: Path, mode: int) -> None:
    """The directory and those in it, which are for those whom it is for."""
    try:
        directory.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        pass
    else:
        directory.chmod(mode)
    for inner in (directory / "boards", bells(directory)):
        if not inner.is_dir():
            with contextlib.suppress(FileExistsError):
                inner.mkdir(mode=0o700)
                inner.chmod(stat.S_IMODE(directory.stat().st_mode))
