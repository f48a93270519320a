"""Leases from a labgrid coordinator: boards that the runs of many hosts share.

A board is a *place* there. What labgrid does with the places of a client that is gone is: nothing.
They stay acquired, by the name that the client gave itself, until somebody releases them; only
reservations end by themselves, after a minute. So each process has a name of its own
(:mod:`pytest_hil.lab.labgrid_runs`), and all that has a dead one's name is released by the next run
of its host, and by those that wait already, as soon as its process ends.

Why gRPC by grpcio and not labgrid's own client from an environment of its own: a lease costs some
milliseconds instead of a second, changes come as events, and a release is one call that can be sent
while a process is being ended. labgrid itself cannot be in the user's environment: its fork of
pyserial overwrites pyserial.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pytest_hil import process
from pytest_hil.config.board import BoardTarget
from pytest_hil.errors import ConfigError, nearest
from pytest_hil.lab import farewell, labgrid_reach
from pytest_hil.lab.labgrid_places import ALLOCATED, WAITING, Place, filters, find
from pytest_hil.lab.labgrid_runs import Run, Runs
from pytest_hil.lab.labgrid_session import Refused, Session
from pytest_hil.lab.lease import Busy, Waiting, default_directory, user_name
from pytest_hil.lab.locks import Lock
from pytest_hil.lab.registry import Holder, LabError, duration
from pytest_hil.progress import silent

# labgrid's own variables for who a client is (labgrid/remote/client.py).
HOST, USER = "LG_HOSTNAME", "LG_USERNAME"

# Seconds: a reservation lives for 60 without a word; a wait is told of again after so many; who
# cannot be watched (in a container of its own, or just gone) is looked at so often.
_REFRESH, _TELL, _LOOK_AGAIN = 20.0, 30.0, 0.5


@dataclass(slots=True)
class LabgridLease:
    """A place that is ours; ends with :meth:`release`. A context manager."""

    board: str
    place: str
    _lab: LabgridLab = field(repr=False)
    _pid: int = field(default_factory=os.getpid, repr=False)

    @property
    def lost(self) -> str:
        """Why it is not ours any more; "" as long as it is, for all that is known."""
        return self._lab._lost(self.place)

    def reach(self, target: BoardTarget) -> BoardTarget:
        """The board, with what its place exports as its console and power, where boards.toml says
        so. Raises InfrastructureError.
        """
        return self._lab._reach(self.place, target)

    def release(self) -> None:
        """Give it back. May be called twice; does nothing in a process that was forked from ours.

        When the coordinator cannot be told, that is said, and the next run of this host does it.
        """
        if os.getpid() == self._pid:
            self._lab._give_back(self.place)

    def __enter__(self) -> LabgridLease:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()


class LabgridLab:
    """The boards that a coordinator at ``address`` ("host:port") has as places.

    ``places``: board → its place (others are named as their boards). ``directory`` None: the
    user's; it is where runs of this host find what killed ones have left. ``say`` is told of that.
    Connects when it is first asked. A context manager, and its end gives everything back.
    """

    def __init__(
        self,
        address: str,
        *,
        places: Mapping[str, str] | None = None,
        directory: Path | None = None,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.address = address
        self._named = dict(places or {})
        self._say = say
        host = os.environ.get(HOST) or socket.gethostname()
        user = os.environ.get(USER) or user_name()
        self.directory = default_directory() if directory is None else directory.absolute()
        self._runs = Runs(self.directory, _plain(host), _plain(user))
        self._lock = threading.RLock()
        self._taking = threading.Lock()
        self._session: Session | None = None
        self._me: tuple[Run, Lock] | None = None
        self._held: set[str] = set()
        # Something may be ours at the coordinator of which we know nothing any more.
        self._owes = False
        self._pid = os.getpid()

    # --- taking ---

    def acquire(
        self,
        boards: Sequence[str],
        *,
        purpose: str = "",
        priority: int = 0,
        wait: float = 0.0,
        on_wait: Callable[[str], None] = silent,
        keeps: Sequence[str] = (),
    ) -> LabgridLease:
        """One board of those; the parameters are those of the local lab's. ``purpose`` and
        ``keeps`` are not told to others: labgrid has no place for them.

        Raises Busy, LabError, and ConfigError for a place that there is not.
        """
        del purpose, keeps
        names = tuple(dict.fromkeys(boards))
        if not names:
            raise ConfigError("boards", "none is named, so there is none to wait for")
        session = self._connected()
        session.sync()  # we may have given it back a moment ago
        asked = _Asked(self._wanted(session, names), priority)
        began = time.monotonic()
        try:
            return self._wait(session, asked, began, wait, on_wait)
        finally:
            for token in asked.tokens:
                # Broken: it ends by itself in a minute, and by who finds our name before that.
                with contextlib.suppress(Refused, LabError):
                    session.cancel(token)

    def _wanted(self, session: Session, boards: Sequence[str]) -> dict[str, str]:
        """Place → board, in their order."""
        places = session.places
        wanted: dict[str, str] = {}
        for board in boards:
            name = self._named.get(board, board)
            place = find(name, places)
            if place is None:
                raise ConfigError(
                    f"labgrid's coordinator at {self.address}",
                    f"there is no place {name!r}" + (f" for {board}" if name != board else ""),
                    mend=f"{nearest(name, places)}; `labgrid-client -x {self.address} "
                    f"-p {name} create` makes one",
                )
            wanted.setdefault(place.name, board)
        return wanted

    def _wait(
        self,
        session: Session,
        asked: _Asked,
        began: float,
        wait: float,
        on_wait: Callable[[str], None],
    ) -> LabgridLease:
        told, told_at, refreshed = "", began, began
        while True:
            session.quiet()
            if (lease := self._take(session, asked)) is not None:
                return lease
            now = time.monotonic()
            left = began + wait - now
            if left <= 0:
                raise _busy(session.places, asked.wanted, now - began if wait > 0 else 0.0)
            if not asked.tokens or now - refreshed >= _REFRESH:
                refreshed = now
                if self._reserve(session, asked):
                    continue  # it may have been given one at once
            sentence = _why(session.places, asked.wanted)
            if sentence != told or now - told_at >= _TELL:
                told, told_at = sentence, now
                on_wait(f"waiting for {' or '.join(asked.wanted.values())}: {sentence}")
            self._sleep(session, min(left, _REFRESH, _TELL))

    def _take(self, session: Session, asked: _Asked) -> LabgridLease | None:
        """A place that is free, or kept for a reservation of ours."""
        if (broken := session.broken) is not None:
            raise broken
        places = session.places
        for name in list(asked.wanted):
            place = places.get(name)
            if place is None:
                raise LabError(f"the place {name} was removed from labgrid's coordinator")
            if place.acquired == session.name and self._adopted(name):
                return LabgridLease(asked.wanted[name], name, self)
            if place.acquired or place.reservation not in ("", *asked.tokens):
                continue
            try:
                with self._taking:
                    if name in self._held:
                        continue  # another thread was quicker
                    self._acquire(session, name)
                return LabgridLease(asked.wanted[name], name, self)
            except Refused as refused:
                session.sync()
                if not (now := session.places.get(name)) or not now.acquired:
                    asked.broken(name, f"{asked.wanted[name]}: {refused}", self.address)
        return None

    def _adopted(self, place: str) -> bool:
        """It is ours already: it could not be given back when nobody had any more use for it."""
        with self._lock:
            if place in self._held:
                return False
            self._held.add(place)
            return True

    def _acquire(self, session: Session, place: str) -> None:
        with self._lock:
            self._held.add(place)
        try:
            session.acquire(place)
            session.sync()
        except BaseException:
            # Interrupted, or without an answer: it may be ours all the same.
            with self._lock:
                self._held.discard(place)
            try:
                session.release(place, session.name)
            except (Refused, LabError):
                self._owes = True
            raise

    def _reserve(self, session: Session, asked: _Asked) -> bool:
        """Make or keep up what is reserved; whether something new was made."""
        alive = set()
        for token in asked.tokens:
            with contextlib.suppress(Refused):
                if session.poll(token).state in (WAITING, ALLOCATED):
                    alive.add(token)
        if asked.tokens and alive == asked.tokens:
            return False
        for token in alive:
            with contextlib.suppress(Refused):
                session.cancel(token)
        asked.tokens.clear()
        places = session.places
        wanted = [places[name] for name in asked.wanted if name in places]
        for one in filters(wanted, places.values()):
            asked.tokens.add(session.reserve(one, float(asked.priority)).token)
        session.sync()
        return True

    def _sleep(self, session: Session, seconds: float) -> None:
        """Until something changes at the coordinator, or a run of this host ends."""
        dead, alive = self._runs.others(self.address)
        if dead:
            self._reap(session)
            return
        poll = select.poll()
        poll.register(session, select.POLLIN)
        watched = []
        try:
            for run in alive:
                if run.pid == os.getpid():
                    continue  # it ends when we do
                fd = _pidfd(run)
                if fd is None:
                    seconds = min(seconds, _LOOK_AGAIN)
                else:
                    watched.append(fd)
                    poll.register(fd, select.POLLIN)
            poll.poll(max(0.0, seconds) * 1000)
        finally:
            for fd in watched:
                os.close(fd)
        self._reap(session)

    # --- looking ---

    def queue(self) -> list[Waiting]:
        """Who waits by a reservation, the next one first; nobody when nobody can be asked."""
        with self._lock:
            session = self._session
        if session is None or session.broken is not None:
            return []
        boards = {self._named.get(board, board): board for board in self._named}
        places = session.places
        try:
            waiting = [one for one in session.reservations() if one.state == WAITING]
        except (LabError, Refused):
            return []
        waiting.sort(key=lambda one: -one.priority)
        found = []
        for one in waiting:
            fitting = [place.name for place in places.values() if one.wants(place)]
            wants = tuple(boards.get(name, name) for name in fitting)
            found.append(Waiting(_holder(one.owner), wants, int(one.priority)))
        return found

    def _lost(self, place: str) -> str:
        with self._lock:
            session = self._session
        if session is None or session.broken is not None:
            # For all that is known the coordinator is still as it was.
            try:
                session = self._connected()
            except LabError:
                return ""
        now = session.places.get(place)
        if now is None:
            return f"the place {place} was removed from labgrid's coordinator"
        if now.acquired == session.name:
            return ""
        if now.acquired:
            return f"{now.acquired} has the place {place} now"
        return f"somebody released the place {place}, or labgrid's coordinator was restarted"

    def _reach(self, place: str, target: BoardTarget) -> BoardTarget:
        session = self._connected()
        now = session.places.get(place) or Place(place)
        exported = session.resources
        resources = [exported[name] for name in now.resources if name in exported]
        return labgrid_reach.reach(target, now, resources)

    # --- the connection ---

    def _connected(self) -> Session:
        """A session that works: the first one removes what killed runs of this host have left."""
        with self._lock:
            if self._session is not None and self._session.broken is None:
                return self._session
            if self._session is not None:
                self._session.close()
                self._session = None
            try:
                if self._me is None:
                    self._me = self._runs.begin(self.address)
                session = Session(self.address, self._me[0].name)
                self._session = session
                farewell.remember(self)
                self._reap(session)
            except OSError as error:
                raise LabError(
                    f"the lab's directory cannot be used: {error}",
                    mend="make it writable, or use another one: PYTEST_HIL_LAB=DIR",
                ) from error
            return session

    def _reap(self, session: Session) -> None:
        """Release and cancel all that dead runs of this host have left."""
        dead, _alive = self._runs.others(self.address)
        for run in dead:
            for what in _clear(session, run.name):
                self._say(
                    f"labgrid: {what}, left by a run of this host that was killed ({run.name})"
                )
            self._runs.forget(run)

    def _give_back(self, place: str) -> None:
        with self._lock:
            if place not in self._held:
                return
            self._held.discard(place)
        try:
            session = self._connected()
            with contextlib.suppress(Refused):  # there is no such place any more
                session.release(place, session.name)
        except LabError as error:
            self._owe(error)

    def _owe(self, error: LabError) -> None:
        """Nothing is wrong with this run because of that."""
        self._owes = True
        self._say(
            f"labgrid: what this run had could not be given back: {error.message}; the next run of "
            "this host does it"
        )

    def close(self) -> None:
        """Give everything back and end the connection. May be called twice.

        When the coordinator cannot be told, that is said, and the next run of this host does it.
        """
        if os.getpid() != self._pid:
            return
        farewell.forget(self)
        with self._lock:
            session, self._session = self._session, None
            me, self._me = self._me, None
            held, self._held = self._held, set()
        if me is None:
            return
        run, lock = me
        try:
            if session is not None and session.broken is not None:
                session.close()
                session = None
            if session is None and (held or self._owes):
                session = Session(self.address, run.name)
            if session is not None:
                _clear(session, run.name)
            self._runs.forget(run)
        except LabError as error:
            self._owe(error)
        finally:
            lock.free()
            if session is not None:
                session.close()

    def leave(self) -> None:
        """Give everything back while this process is being ended, from any thread. Our name stays
        written: what was on its way is released by the next run.
        """
        if os.getpid() != self._pid:
            return
        session, me = self._session, self._me
        if session is not None and me is not None:
            with contextlib.suppress(LabError, Refused):
                _clear(session, me[0].name)

    def __enter__(self) -> LabgridLab:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclass(slots=True)
class _Asked:
    """What is wanted, place → board, and the tokens of what was reserved to get it."""

    wanted: dict[str, str]
    priority: int
    tokens: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    def broken(self, place: str, why: str, address: str) -> None:
        """Not busy, and still not to be had: without it from now on. Raises LabError if it was the
        last one.
        """
        del self.wanted[place]
        self.refusals.append(why)
        if not self.wanted:
            lines = "".join(f"\n    {one}" for one in self.refusals)
            raise LabError(
                f"labgrid's coordinator at {address} does not give it:{lines}",
                mend=f"what its exporter says: `labgrid-client -x {address} -p {place} show`",
            )


def _clear(session: Session, name: str) -> list[str]:
    """Release and cancel all that somebody has; what it was."""
    done = []
    for one in session.reservations():
        if one.owner == name:
            with contextlib.suppress(Refused):
                session.cancel(one.token)
                done.append(f"cancelled the reservation {one.token}")
    for place in session.places_now():
        if place.acquired == name:
            with contextlib.suppress(Refused):
                session.release(place.name, name)
                done.append(f"released the place {place.name}")
    return done


def _why(places: Mapping[str, Place], wanted: Mapping[str, str]) -> str:
    return "; ".join(_state(places, *pair) for pair in wanted.items())


def _state(places: Mapping[str, Place], name: str, board: str) -> str:
    place = places.get(name)
    called = board if board == name else f"{board} (place {name})"
    if place is not None and place.acquired:
        return f"{called}: {place.acquired} has it"
    if place is not None and place.reservation:
        return f"{called}: it is kept for the reservation {place.reservation}"
    return f"{called}: it is free"


def _busy(places: Mapping[str, Place], wanted: Mapping[str, str], waited: float) -> Busy:
    boards = list(wanted.values())
    what = (
        f"{boards[0]} is not free" if len(boards) == 1 else f"none of {', '.join(boards)} is free"
    )
    after = f" after {duration(waited)}" if waited else ""
    lines = "".join(f"\n    {_state(places, *pair)}" for pair in wanted.items())
    holders = [
        _holder(place.acquired)
        for name in wanted
        if (place := places.get(name)) is not None and place.acquired
    ]
    return Busy(
        f"{what}{after}:{lines}",
        holders=holders,
        waited=waited,
        mend="wait longer (--hil-wait=SECONDS); `labgrid-client who` shows all",
    )


def _holder(owner: str) -> Holder:
    host, _, user = owner.partition("/")
    return Holder(user, host, 0, "", "", time.time())


def _pidfd(run: Run) -> int | None:
    """A descriptor that tells of its end; None when it is gone, or none that we see."""
    try:
        fd = os.pidfd_open(run.pid)
    except OSError:
        return None
    if process.start_time(run.pid) == run.started:
        return fd
    os.close(fd)
    return None


def _plain(name: str) -> str:
    """A name as a file may have it, and without the slash that labgrid splits at."""
    return re.sub(r"[^A-Za-z0-9_.@-]|^\.", "_", name)
