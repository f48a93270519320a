"""What people want to know of the lab: who has which board, who waits, what was reserved, and what
happened. An SQLite file.

It is information: that nobody else has a board is what the locks are for
(:mod:`pytest_hil.lab.locks`). So nothing waits for the disk, and if the file is lost the leases
are as good as before.
"""

from __future__ import annotations

import contextlib
import json
import shlex
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pytest_hil.errors import InfrastructureError, one_line
from pytest_hil.lab.queue import Process, Waiter

SCHEMA = 1
# What makes an SQLite file ours: "hil1".
_APPLICATION = 0x68696C31
# So many events are kept.
_KEPT = 10_000
# Somebody may look at the file with another program: seconds to wait for them.
_PATIENCE = 5.0

_TABLES = """
CREATE TABLE leases (
    board TEXT PRIMARY KEY, who TEXT NOT NULL
);
CREATE TABLE queue (
    number INTEGER PRIMARY KEY AUTOINCREMENT, wants TEXT NOT NULL, priority INTEGER NOT NULL,
    since REAL NOT NULL, bell TEXT NOT NULL, who TEXT NOT NULL
);
CREATE TABLE reservations (
    board TEXT PRIMARY KEY, user TEXT NOT NULL, maker TEXT NOT NULL, since REAL NOT NULL,
    until REAL NOT NULL, reason TEXT NOT NULL
);
CREATE TABLE history (
    number INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, what TEXT NOT NULL,
    board TEXT NOT NULL, user TEXT NOT NULL, run TEXT NOT NULL, purpose TEXT NOT NULL,
    seconds REAL
);
"""

_HEALTH = """
CREATE TABLE IF NOT EXISTS health (board TEXT PRIMARY KEY, facts TEXT NOT NULL)
"""


class LabError(InfrastructureError):
    """The lab's directory cannot be used, or what is asked of the lab cannot be done."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a board, or waits for one. ``since``: the wall clock's time in seconds; ``space``
    and ``started`` (clock ticks since boot) make the pid a process for good. ``keeps``: what it has
    while it waits.
    """

    user: str
    host: str
    pid: int
    run: str
    purpose: str
    since: float
    space: str = ""
    started: int = 0
    keeps: tuple[str, ...] = ()

    @property
    def process(self) -> Process:
        return self.space, self.pid, self.started

    def __str__(self) -> str:
        run = f", run {self.run}" if self.run else ""
        purpose = f" ({self.purpose})" if self.purpose else ""
        ago = duration(time.time() - self.since)
        # Others wrote it, and a purpose has the name of a directory.
        return one_line(f"{self.user}@{self.host}, process {self.pid}{run}, for {ago}{purpose}")


@dataclass(frozen=True, slots=True)
class Ticket:
    """Somebody's place in the queue. ``bell`` is the name of the FIFO that wakes them."""

    waiter: Waiter
    bell: str
    who: Holder


@dataclass(frozen=True, slots=True)
class Reservation:
    """``user`` alone may take the board until ``until``; ``maker`` is who said so. Times of the
    wall clock, in seconds.
    """

    board: str
    user: str
    maker: str
    since: float
    until: float
    reason: str

    def __str__(self) -> str:
        end = time.strftime("%Y-%m-%d %H:%M", time.localtime(self.until))
        by = f" by {self.maker}" if self.maker != self.user else ""
        reason = f" ({self.reason})" if self.reason else ""
        return one_line(f"reserved for {self.user}{by} until {end}{reason}")


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``what``: taken, released, lost (its holder ended without a word),
    reserved, unreserved, expired; quarantined, probation, healthy. ``seconds``: how long it was
    held.
    """

    at: float
    what: str
    board: str
    user: str
    run: str
    purpose: str
    seconds: float | None = None


class Registry:
    """The open file. Not for several threads; whoever uses it holds the lab's gate."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    # --- leases ---

    def leases(self) -> dict[str, Holder]:
        rows = self._database.execute("SELECT board, who FROM leases ORDER BY board")
        return {board: _holder(who) for board, who in rows}

    def lease(self, board: str, holder: Holder) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO leases VALUES (?, ?)", (board, _text(holder))
        )
        self._happened("taken", board, holder.user, holder.run, holder.purpose)

    def end_lease(self, board: str, holder: Holder, what: str) -> None:
        """``what``: released, or lost."""
        self._database.execute("DELETE FROM leases WHERE board = ?", (board,))
        held = max(0.0, time.time() - holder.since)
        self._happened(what, board, holder.user, holder.run, holder.purpose, held)

    # --- the queue ---

    def tickets(self) -> list[Ticket]:
        rows = self._database.execute("SELECT number, wants, priority, since, bell, who FROM queue")
        found = []
        for number, wants, priority, since, bell, who in rows:
            holder = _holder(who)
            names = tuple(_read(wants))
            waiter = Waiter(
                *(number, names, since, holder.user, holder.process, priority, holder.keeps)
            )
            found.append(Ticket(waiter, bell, holder))
        return found

    def queue(self, waiter: Waiter, bell: str, who: Holder) -> Ticket:
        """A place in the queue: a new one if the waiter's number is 0, else that one again."""
        cursor = self._database.execute(
            "INSERT INTO queue VALUES (?, ?, ?, ?, ?, ?)",
            (
                waiter.number or None,
                json.dumps(waiter.wants),
                waiter.priority,
                waiter.since,
                bell,
                _text(who),
            ),
        )
        facts = asdict(waiter) | {"number": cursor.lastrowid}
        return Ticket(Waiter(**facts), bell, who)

    def end_ticket(self, number: int) -> None:
        self._database.execute("DELETE FROM queue WHERE number = ?", (number,))

    # --- reservations ---

    def reservations(self) -> dict[str, Reservation]:
        rows = self._database.execute(
            "SELECT board, user, maker, since, until, reason FROM reservations ORDER BY board"
        )
        return {row[0]: Reservation(*row) for row in rows}

    def reserve(self, one: Reservation) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO reservations VALUES (?, ?, ?, ?, ?, ?)",
            (one.board, one.user, one.maker, one.since, one.until, one.reason),
        )
        self._happened("reserved", one.board, one.user, "", one.reason)

    def end_reservation(self, one: Reservation, what: str) -> None:
        """``what``: unreserved, or expired."""
        self._database.execute("DELETE FROM reservations WHERE board = ?", (one.board,))
        self._happened(what, one.board, one.user, "", one.reason)

    # --- health ---

    def health(self) -> dict[str, str]:
        """What was written down about each board, as JSON."""
        self._add_health()
        return dict(self._database.execute("SELECT board, facts FROM health ORDER BY board"))

    def set_health(self, board: str, facts: str) -> None:
        self._add_health()
        self._database.execute("INSERT OR REPLACE INTO health VALUES (?, ?)", (board, facts))

    def health_changed(self, what: str, board: str, user: str, reason: str) -> None:
        """``what``: the state that it is in now."""
        self._happened(what, board, user, "", reason)

    def _add_health(self) -> None:
        # It came later: who does not know of it can still read the rest, so the schema's number
        # stays what it is.
        self._database.execute(_HEALTH)

    # --- history ---

    def history(self, limit: int) -> list[Event]:
        """The last so many, the oldest first."""
        rows = self._database.execute(
            "SELECT at, what, board, user, run, purpose, seconds FROM history "
            "ORDER BY number DESC LIMIT ?",
            (limit,),
        )
        return [Event(*row) for row in rows][::-1]

    def _happened(
        self,
        what: str,
        board: str,
        user: str,
        run: str,
        purpose: str,
        seconds: float | None = None,
    ) -> None:
        cursor = self._database.execute(
            "INSERT INTO history (at, what, board, user, run, purpose, seconds) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            (time.time(), what, board, user, run, purpose, seconds),
        )
        number = cursor.lastrowid or 0
        if number % 100 == 0:
            self._database.execute("DELETE FROM history WHERE number <= ?", (number - _KEPT,))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Registry]:
    """The registry's file, made if it is not there; what is done is kept unless it raises.

    Raises LabError when it is broken, somebody else's, or of a newer pytest-hil.
    """
    database: sqlite3.Connection | None = None
    try:
        new = not path.exists()
        # Another thread may close it: it is never used by two at once.
        database = sqlite3.connect(
            path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
        )
        if new:
            path.chmod(stat.S_IMODE(path.parent.stat().st_mode) & 0o666)
        _prepare(database, path)
        database.execute("BEGIN IMMEDIATE")
        yield Registry(database)
        database.execute("COMMIT")
    except sqlite3.Error as error:
        raise _broken(path, error) from error
    finally:
        if database is not None:
            database.close()


def _prepare(database: sqlite3.Connection, path: Path) -> None:
    # A crash of the host may lose what is in it: so it does the leases.
    database.execute("PRAGMA synchronous = OFF")
    ours, version = _number(database, "application_id"), _number(database, "user_version")
    if ours == _APPLICATION and version == SCHEMA:
        return
    if ours == _APPLICATION and version > SCHEMA:
        raise LabError(
            f"the lab's registry {path} is of a newer pytest-hil: its schema is {version}, this "
            f"one knows {SCHEMA}",
            mend="update pytest-hil here, or use another directory: PYTEST_HIL_LAB=DIR",
        )
    tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if ours or version or tables:
        raise LabError(
            f"{path} is a database, but not the lab's registry",
            mend="use another directory: PYTEST_HIL_LAB=DIR",
        )
    database.execute("PRAGMA journal_mode = WAL")
    # All of it or nothing, whoever is killed in between. executescript() would commit first.
    database.execute("BEGIN IMMEDIATE")
    for statement in filter(str.strip, _TABLES.split(";")):
        database.execute(statement)
    database.execute(f"PRAGMA application_id = {_APPLICATION}")
    database.execute(f"PRAGMA user_version = {SCHEMA}")
    database.execute("COMMIT")


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


def _broken(path: Path, error: Exception) -> LabError:
    if isinstance(error, sqlite3.OperationalError):
        return LabError(
            f"the lab's registry {path} cannot be used: {error}",
            mend="see that it can be written, that its disk has room and that no other program "
            "keeps it locked; or use another directory: PYTEST_HIL_LAB=DIR",
        )
    away = shlex.quote(f"{path}.broken")
    return LabError(
        f"the lab's registry {path} is damaged: {error}",
        mend="move it away; leases do not depend on it, but reservations and the history are in "
        f"it: mv {shlex.quote(str(path))} {away}; rm -f {shlex.quote(str(path))}-*",
    )


def _text(holder: Holder) -> str:
    facts = asdict(holder)
    if not holder.keeps:
        del facts["keeps"]  # it came later: others may not know of it
    return json.dumps(facts)


def _holder(text: str) -> Holder:
    try:
        facts = _read(text)
        return Holder(**facts | {"keeps": tuple(facts.get("keeps", ()))})
    except (TypeError, AttributeError) as error:
        raise sqlite3.DatabaseError(f"{text!r} says nothing of a holder") from error


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise sqlite3.DatabaseError(f"{text!r} is no JSON") from error


def holder_in(text: str) -> Holder | None:
    """The holder that stands in a lock's file; None if that says nothing that we know."""
    try:
        found: dict[str, Any] = json.loads(text)
        known = {name: found[name] for name in Holder.__slots__ if name in found}
        known["keeps"] = ()  # who has a board waits for none by it
        return Holder(**{"run": "", **known})
    except (ValueError, TypeError):
        return None


def duration(seconds: float) -> str:
    """As people say it: ``12 s``, ``5 min``, ``1.5 h``."""
    if seconds < 60:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
