"""Leases: a board belongs to one run of this host at a time.

A lease is a lock on the board's file, held by the process that runs the tests: however that ends,
the kernel drops it. Who waits is in the registry's queue, and sleeps until it is its turn or until
a process ends that it watches (:mod:`pytest_hil.lab.queue` says which). All that changes
anything does so behind one gate, a lock that is held for about a millisecond, and rings the bells
of those for whom it makes a difference.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import select
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_hil import process
from pytest_hil.config.board import BoardTarget
from pytest_hil.errors import ConfigError, one_line
from pytest_hil.lab import look, queue
from pytest_hil.lab.locks import Bell, Lock
from pytest_hil.lab.look import Look
from pytest_hil.lab.queue import Plan, Process, Waiter
from pytest_hil.lab.registry import Event, Holder, LabError, Reservation, Ticket, duration
from pytest_hil.progress import silent

DIRECTORY = "PYTEST_HIL_LAB"

# A wait is told of when its reason changes, and again after so many seconds.
_TELL = 30.0
# Who cannot be watched (in a container of its own, or dead, with a child that keeps its board) is
# looked at so often, in seconds.
_LOOK_AGAIN = 0.5
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,200}")

__all__ = [
    "BoardState",
    "Busy",
    "Event",
    "Holder",
    "Lab",
    "LabError",
    "Lease",
    "Reservation",
    "Waiting",
]


class Busy(LabError):
    """No board that fits came free. ``holders``: who has them; ``waited``: seconds."""

    def __init__(
        self, message: str, *, holders: Sequence[Holder], waited: float = 0.0, mend: str = ""
    ) -> None:
        super().__init__(message, mend=mend)
        self.holders = tuple(holders)
        self.waited = waited


@dataclass(frozen=True, slots=True)
class Waiting:
    """Somebody who waits for one of ``wants``."""

    who: Holder
    wants: tuple[str, ...]
    priority: int


@dataclass(frozen=True, slots=True)
class BoardState:
    """A board now. ``queue``: who waits for it, the next one first."""

    board: str
    holder: Holder | None
    reservation: Reservation | None
    queue: tuple[Waiting, ...]


@dataclass(slots=True)
class Lease:
    """A right to a board; ends with :meth:`release`, or with this process. A context manager."""

    board: str
    holder: Holder
    _lab: Lab = field(repr=False)
    _lock: Lock = field(repr=False)

    @property
    def lost(self) -> str:
        """Why it is not ours any more: the kernel takes no lock away, so never."""
        return ""

    def reach(self, target: BoardTarget) -> BoardTarget:
        """How the board is reached: as boards.toml says."""
        return target

    def release(self) -> None:
        """Give it back. May be called twice; does nothing in a process that was forked from its
        holder. Raises LabError when the registry is broken; the board is free all the same.
        """
        self._lab._give_back(self.board, self.holder, self._lock)

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class Lab:
    """The boards that the runs of a host share. Holds nothing open: any number may be made.

    ``directory`` None: :func:`default_directory`. If it is not there it is made with ``mode``;
    0o2770 shares it with its group. What is made in it can be used by those who may use it.
    """

    def __init__(self, directory: Path | None = None, *, mode: int = 0o700) -> None:
        self.directory = default_directory() if directory is None else directory.absolute()
        self._mode = mode

    # --- taking ---

    def acquire(
        self,
        boards: Sequence[str],
        *,
        run: str = "",
        purpose: str,
        priority: int = 0,
        wait: float = 0.0,
        on_wait: Callable[[str], None] = silent,
        keeps: Sequence[str] = (),
    ) -> Lease:
        """One board of those: the first that is free and that nobody with precedence waits for.

        ``run`` and ``purpose`` are what others are told. ``priority``: -10 to 10, higher goes
        first (a step is worth a minute of waiting). ``wait``: seconds; ``on_wait`` is told why.
        ``keeps``: boards that the caller has and keeps until then; if whoever has the others waits
        for these, nobody waits. Raises Busy, LabError, and ConfigError for a priority or a name
        that cannot be.
        """
        if priority not in queue.PRIORITIES:
            raise ConfigError("priority", f"{priority} is not one of -10 to 10")
        names = tuple(dict.fromkeys(board_name(board) for board in boards))
        if not names:
            raise ConfigError("boards", "none is named, so there is none to wait for")
        who = _me(run, purpose, tuple(keeps))
        began = time.monotonic()
        asked = Waiter(0, names, began, who.user, who.process, priority, who.keeps)
        place = _Place(asked, who)
        try:
            return self._wait(place, began, wait, on_wait)
        finally:
            self._leave(place)

    def _wait(
        self, place: _Place, began: float, wait: float, on_wait: Callable[[str], None]
    ) -> Lease:
        told, told_at = "", began
        ended: set[Process] = set()
        while True:
            turn = self._turn(place, stay=wait > 0)
            if turn.lease is not None:
                return turn.lease
            now = time.monotonic()
            left = began + wait - now
            if left <= 0:
                raise _busy(turn, place.asked.wants, now - began if wait > 0 else 0.0)
            if turn.reason != told or now - told_at >= _TELL:
                told, told_at = turn.reason, now
                on_wait(f"waiting for {_either(place.asked.wants)}: {turn.sentence}")
                left = began + wait - time.monotonic()
            assert place.bell is not None  # who stays has one
            _sleep(place.bell, turn.plan, min(left, _TELL), ended)

    def _turn(self, place: _Place, *, stay: bool) -> _Turn:
        """Take a board if it is our turn, else take a place in the queue if we ``stay``."""
        taken: tuple[str, Lock] | None = None
        try:
            with self._look(place.asked.wants) as seen:
                ticket = seen.tickets.get(place.asked.number)
                if ticket is None or place.bell is None or ticket.bell != place.bell.path.name:
                    # We are new, or the registry is: then our number may be somebody else's.
                    place.asked = replace(place.asked, number=0)
                    seen.tickets[0] = Ticket(place.asked, "", place.who)
                number = place.asked.number
                plan = seen.plans()[number]
                holder = replace(place.who, since=time.time(), keeps=())
                while plan.take is not None:
                    lock = seen.take(plan.take, holder)
                    if lock is not None:
                        taken = plan.take, lock
                        seen.leave(number)
                        break
                    plan = seen.plans()[number]
                else:
                    if stay:
                        plan = self._stay(seen, place)
                        _check_stuck(seen, place.asked)
                    else:
                        seen.leave(number)
                turn = _Turn(plan, *_why(seen, place.asked))
                seen.done(place.asked.number)
        except BaseException:
            if taken is not None:
                taken[1].free()
            raise
        if taken is not None:
            place.asked = replace(place.asked, number=0)
            turn.lease = Lease(taken[0], holder, self, taken[1])
        return turn

    def _stay(self, seen: Look, place: _Place) -> Plan:
        if place.bell is None:
            # Behind the gate: a bell that belongs to nobody is removed by whoever looks.
            place.bell = Bell(look.bells(self.directory))
        place.asked = seen.stay(place.asked, place.bell, place.who)
        return seen.plans()[place.asked.number]

    def _leave(self, place: _Place) -> None:
        """Out of the queue, if we are in it."""
        if place.bell is None:
            return
        try:
            if place.asked.number:
                # If the registry broke meanwhile: our bell's lock says to the next that we left.
                with contextlib.suppress(LabError), self._look() as seen:
                    seen.leave(place.asked.number)
                    seen.done()
        finally:
            place.bell.remove()

    def _give_back(self, board: str, holder: Holder, lock: Lock) -> None:
        if not lock.ours:
            return
        try:
            with self._look() as seen:
                if lock.ours:  # no other thread was quicker
                    seen.give_back(board, holder, lock)
                    seen.done()
        finally:
            lock.free()

    # --- reserving ---

    def reserve(
        self,
        board: str,
        user: str = "",
        *,
        until: float | None = None,
        seconds: float | None = None,
        reason: str = "",
    ) -> Reservation:
        """Let only one user ("": ourselves) take a board, ``until`` a time of the wall clock or
        for so many seconds. Who has it now keeps it as long as they want.

        Raises LabError when it is reserved by and for others, and ConfigError for words that no
        terminal should be shown.
        """
        for what, words in (("user", user), ("reason", reason)):
            if not words.isprintable():
                raise ConfigError(
                    what, f"{words!r} has a character that cannot be printed", mend="remove it"
                )
        now = time.time()
        if (until is None) == (seconds is None):
            raise ConfigError("until, seconds", "give one of them")
        end = now + (seconds or 0.0) if until is None else until
        if not now < end < now + 366 * 86400:
            raise ConfigError("until, seconds", "it must end in the future, and within a year")
        me = user_name()
        one = Reservation(board_name(board), user or me, me, now, end, reason)
        with self._look() as seen:
            old = seen.reservations.get(board)
            if old is not None and me not in (old.user, old.maker):
                raise _not_yours(old)
            seen.reserve(one)
            seen.done()
        return one

    def release(self, board: str, *, force: bool = False) -> Reservation | None:
        """End a board's reservation, and return it; None when there is none, and the board is free.

        Raises LabError when it is another user's (unless ``force``), and Busy when there is none
        but somebody has the board: only they can give it back.
        """
        with self._look((board_name(board),)) as seen:
            one = seen.reservations.get(board)
            if one is not None:
                if not force and user_name() not in (one.user, one.maker):
                    raise _not_yours(one)
                seen.end_reservation(one)
            elif (holder := seen.leases.get(board)) is not None:
                raise Busy(
                    f"{board} is not reserved, but {holder} has it",
                    holders=[holder],
                    mend="only its holder can give it back: ask them, or end that process",
                )
            seen.done()
        return one

    # --- looking ---

    def status(self, boards: Sequence[str] = ()) -> list[BoardState]:
        """Each of these boards; without any, all that were ever leased, reserved or waited for."""
        with self._look([board_name(board) for board in boards] or None) as seen:
            waiting = _waiting(seen)
            names = boards or sorted(seen.names)
            found = [
                BoardState(
                    name,
                    seen.leases.get(name),
                    seen.reservations.get(name),
                    tuple(one for one in waiting if name in one.wants),
                )
                for name in names
            ]
            seen.done()
        return found

    def queue(self) -> list[Waiting]:
        """Who waits, in the order in which they get something."""
        # Each test on a board asks this, and most often nobody does: who is in the queue has made
        # a bell before. What is wrong with the directory is said below.
        with contextlib.suppress(OSError):
            if not any(look.bells(self.directory).iterdir()):
                return []
        with self._look() as seen:
            found = _waiting(seen)
            seen.done()
        return found

    def history(self, limit: int = 50) -> list[Event]:
        """The last so many events, the oldest first."""
        with self._look() as seen:
            found = seen.registry.history(limit)
            seen.done()
        return found

    @contextlib.contextmanager
    def _look(self, names: Sequence[str] | None = ()) -> Iterator[Look]:
        """The lab, while nobody else changes it. LabError when its directory cannot be used."""
        try:
            with look.at(self.directory, self._mode, names) as seen:
                yield seen
        except OSError as error:
            raise LabError(
                f"the lab's directory {self.directory} cannot be used: {error}",
                mend=f"make it writable, or use another one: {DIRECTORY}=DIR",
            ) from error


@dataclass(slots=True)
class _Place:
    """What is asked for, and the place in the queue: there is one when ``bell`` is."""

    asked: Waiter
    who: Holder
    bell: Bell | None = None


@dataclass(slots=True)
class _Turn:
    """What came of a look. ``reason`` is ``sentence`` without times; ``holders`` have the boards,
    ``lines`` say so.
    """

    plan: Plan
    reason: str
    sentence: str
    holders: list[Holder]
    lines: list[str]
    lease: Lease | None = None


def directory_of(chosen: Path | None, written: Path | None) -> Path | None:
    """The lab's directory of those that were chosen in this run and written in boards.toml;
    None: the default. ``$PYTEST_HIL_LAB`` is of this run.
    """
    return chosen or (None if os.environ.get(DIRECTORY) else written)


def default_directory() -> Path:
    """``$PYTEST_HIL_LAB``, or the user's own of this host: homes may be shared by several hosts."""
    named = os.environ.get(DIRECTORY)
    if named:
        return Path(named).expanduser().absolute()
    shared = os.environ.get("XDG_STATE_HOME", "")
    base = Path(shared) if shared.startswith("/") else Path.home() / ".local" / "state"
    return base / "pytest-hil" / "lab" / socket.gethostname()


def _sleep(bell: Bell, plan: Plan, seconds: float, ended: set[Process]) -> None:
    """Until the bell rings, a process that is watched ends, a reservation does, or the time is up.

    ``ended`` remembers processes that are gone although something holds on to what they had.
    """
    poll = select.poll()
    poll.register(bell, select.POLLIN)
    if plan.until is not None:
        seconds = min(seconds, max(0.0, plan.until - time.time()))
    watched: dict[int, Process] = {}
    try:
        for one in plan.watch:
            if one in ended or one[0] != _space():
                seconds = min(seconds, _LOOK_AGAIN)
            elif one[1] != os.getpid():
                fd = _pidfd(one)
                if fd is None:
                    ended.add(one)
                    seconds = 0.0
                else:
                    watched[fd] = one
                    poll.register(fd, select.POLLIN)
        for fd, _event in poll.poll(max(0.0, seconds) * 1000):
            if fd in watched:
                ended.add(watched[fd])
        bell.quiet()
    finally:
        for fd in watched:
            os.close(fd)


def _pidfd(one: Process) -> int | None:
    """A descriptor that tells of a process's end; None when it has ended."""
    _space, pid, started = one
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # None: it is a zombie, of which the descriptor tells at once, or /proc hides it from us.
    if process.start_time(pid) in (started, None):
        return fd
    os.close(fd)
    return None


def _why(seen: Look, asked: Waiter) -> tuple[str, str, list[Holder], list[str]]:
    """Why nothing is free: the reason, with times, who has the boards, and a line for each."""
    holders, lines, reasons = [], [], []
    for name in asked.wants:
        holder, reservation = seen.leases.get(name), seen.reservations.get(name)
        if holder is not None:
            holders.append(holder)
            lines.append(f"{name}: {holder} has it")
            reasons.append(f"{name} {holder.pid} {holder.since}")
        if reservation is not None and reservation.user != asked.user:
            lines.append(f"{name}: it is {reservation}")
            reasons.append(f"{name} {reservation.until}")
    before = []
    for one in queue.order(ticket.waiter for ticket in seen.tickets.values()):
        if asked.number == one.number:
            break
        if set(one.wants) & set(asked.wants):
            before.append(one)
    if before:
        lines.append(f"{len(before)} came first or go first")
        reasons.append(f"{len(before)} before")
    return "; ".join(reasons), "; ".join(lines), holders, lines


def _check_stuck(seen: Look, asked: Waiter) -> None:
    """Whoever closes a circle of those who wait for each other finds it: raises Busy."""
    if not asked.keeps:
        return
    circle = queue.stuck(ticket.waiter for ticket in seen.tickets.values())
    if asked not in circle:
        return
    lines, holders = [], []
    for one in circle:
        if one == asked or not set(one.keeps) & set(asked.wants):
            continue
        who = seen.tickets[one.number].who
        holders.append(who)
        lines.append(f"{' and '.join(one.keeps)}: {who} has it, and waits for {_either(one.wants)}")
    ours = " and ".join(asked.keeps)
    raise Busy(
        f"{_either(asked.wants)} would never come free, as others wait for what we have, {ours}:"
        + "".join(f"\n    {line}" for line in lines),
        holders=holders,
        mend="let all tests open these boards in the same order, or run those that need several "
        "in one process",
    )


def _either(names: Sequence[str]) -> str:
    return " or ".join(names)


def _busy(turn: _Turn, wants: Sequence[str], waited: float) -> Busy:
    what = f"{wants[0]} is not free" if len(wants) == 1 else f"none of {', '.join(wants)} is free"
    after = f" after {duration(waited)}" if waited else ""
    lines = "".join(f"\n    {line}" for line in turn.lines or ["others wait for it"])
    return Busy(
        f"{what}{after}:{lines}",
        holders=turn.holders,
        waited=waited,
        mend="wait longer (--hil-wait=SECONDS); `pytest-hil lab status` shows all",
    )


def _not_yours(one: Reservation) -> LabError:
    return LabError(
        f"{one.board} is {one}",
        mend=f"ask {one_line(one.user)}, or end it: pytest-hil lab release --force {one.board}",
    )


def _waiting(seen: Look) -> list[Waiting]:
    found = []
    for one in queue.order(ticket.waiter for ticket in seen.tickets.values()):
        who = seen.tickets[one.number].who
        found.append(Waiting(who, one.wants, one.priority))
    return found


def board_name(board: str) -> str:
    """The name, which is a file's as well. Raises ConfigError for one that cannot be."""
    if not _NAME.fullmatch(board):
        raise ConfigError("board", f"{board!r} cannot be a board's name")
    return board


def _me(run: str, purpose: str, keeps: tuple[str, ...]) -> Holder:
    pid = os.getpid()
    started = process.start_time(pid) or 0
    return Holder(
        *(user_name(), socket.gethostname(), pid, run, purpose, time.time(), _space(), started),
        keeps=keeps,
    )


def _space() -> str:
    """Where our pids are meant: a container has its own."""
    return str(Path("/proc/self/ns/pid").stat().st_ino)


def user_name() -> str:
    """By the system, not by $USER: a reservation is for somebody."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
