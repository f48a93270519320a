"""The boards that this process has: leased when a test needs one, kept while nobody else does.

What breaks at a board is written down in the lab's registry, so that this run and others know of
boards that are ill (:mod:`pytest_hil.lab.health`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_hil.config import BoardTarget
from pytest_hil.errors import HostLacks, InfrastructureError
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.board.board import Board
    from pytest_hil.board.station import Station
    from pytest_hil.lab.health import Health
    from pytest_hil.lab.health_book import HealthBook
    from pytest_hil.lab.labgrid import LabgridLab, LabgridLease
    from pytest_hil.lab.lease import Lab, Lease

# Seconds to wait for a board that was ours and that others got when they waited for it.
_NEXT_TURN = 3600.0


@dataclass(slots=True)
class _Leased:
    """A board that is ours. ``station`` None: it is to be opened, as nobody has yet or as it broke.

    ``fresh``: nobody has used it since it was leased. ``doubt``: it broke, or was in quarantine:
    that it works is to be seen by a power cycle. ``error``: the last one that was counted.
    ``health``: as it was when it was last opened. ``events`` gets what its boot does.
    """

    target: BoardTarget
    lease: Lease | LabgridLease
    station: Station | None = None
    health: Health | None = None
    in_use: bool = False
    fresh: bool = True
    doubt: bool = False
    error: InfrastructureError | None = None
    events: Callable[..., None] | None = None

    def close_station(self) -> None:
        station, self.station = self.station, None
        if station is not None:
            station.close()

    def close(self) -> None:
        try:
            self.close_station()
        finally:
            self.lease.release()


class Stations:
    """Opens boards. ``wait``: seconds to wait for one that somebody else has; ``purpose`` is what
    they are told it is for. ``say`` gets what the user should know. ``health`` None: in the lab.
    """

    def __init__(
        self,
        lab: Lab | LabgridLab,
        *,
        wait: float,
        purpose: str,
        health: HealthBook | None = None,
        progress: Progress = silent,
        say: Callable[[str], None] = silent,
    ) -> None:
        self._lab = lab
        self._wait = wait
        self._purpose = purpose
        self._health = health
        self._progress = progress
        self._say = say
        self._lock = threading.RLock()
        self._leased: dict[BoardTarget, _Leased] = {}
        # What was given to others who waited for it: it is waited for, whatever ``wait`` says.
        self._let_go: set[BoardTarget] = set()
        # What was given up in this run, and why: their tests go elsewhere.
        self._ill: dict[BoardTarget, InfrastructureError] = {}

    @property
    def health(self) -> HealthBook:
        """What is known of the boards, of this run and of others."""
        with self._lock:
            if self._health is None:
                from pytest_hil.lab.health_book import HealthBook

                self._health = HealthBook(self._lab.directory)
            return self._health

    def open(self, targets: Sequence[BoardTarget]) -> Board:
        """One of these boards, at the end of its boot. It stays ours until :meth:`close`, or until
        somebody else waits for it.

        A board that breaks is given up for this run when there are others, and one that is in
        quarantine is left alone until its time comes. Raises Busy when others have all of them,
        Quarantined, and what the last one broke with.
        """
        from pytest_hil.lab.health_book import Quarantined

        alone = len(targets) == 1
        while well := [one for one in targets if alone or one not in self._ill]:
            try:
                allowed, known = self._allowed(well)
            except Quarantined:
                if len(well) < len(targets):
                    break  # others were not in quarantine, and broke
                raise
            try:
                return self._open(allowed, known, give_up=not alone)
            except _Broken as broken:
                if alone:
                    raise broken.error from broken.error.__cause__
                self._ill[broken.board] = broken.error
                self._say(f"the board {broken.board.name} is given up: {broken.error.message}")
            except _Barred:
                continue  # and so it is not allowed any more
        raise next(self._ill[one] for one in reversed(targets) if one in self._ill)

    def check(self, target: BoardTarget, tell: Callable[[str], None]) -> Health:
        """Try a board, whatever is known of it: lease it, switch it off and on, boot it to its
        last stage, and give it back. ``tell`` gets a line for each step that is done.

        Raises what it broke with, and Busy.
        """
        name = target.name

        def happened(kind: str, **facts: object) -> None:
            if kind == "boot":
                words = " ".join(str(facts[key]) for key in ("move", "stage") if key in facts)
                tell(f"{name}: {words}, {facts.get('seconds')} s")

        with self._lock:
            leased = self._ours([target]) or self._lease([target])
            leased.in_use = leased.doubt = True
        leased.events = happened
        try:
            self._ready(leased)
        except _Broken as broken:
            raise broken.error from broken.error.__cause__
        finally:
            leased.in_use = False
            self.release(target)
        return self.health.look([name])[name]

    def _allowed(
        self, targets: Sequence[BoardTarget]
    ) -> tuple[list[BoardTarget], Mapping[str, Health]]:
        """Those that are not in quarantine, and what is known of all; first those whose time has
        come, as nobody finds out otherwise whether they are well again, and last those that broke
        lately. Raises Quarantined when none is left.
        """
        from pytest_hil.lab.health_book import Quarantined, sentence

        known = self.health.look([one.name for one in targets])
        now = self.health.clock()
        barred = {name: one for name, one in known.items() if one.barred(now)}
        for name, one in barred.items():
            self._say(f"{sentence(name, one)}; pytest-hil lab health {name}")
        allowed = [one for one in targets if one.name not in barred]
        if not allowed:
            raise Quarantined(barred)

        def place(one: BoardTarget) -> int:
            if known[one.name].due(now):
                return 0
            return 2 if known[one.name].state == "suspect" else 1

        return sorted(allowed, key=place), known

    def _open(
        self, targets: Sequence[BoardTarget], known: Mapping[str, Health], *, give_up: bool
    ) -> Board:
        from pytest_hil.board.board import Board

        with self._lock:
            ours = self._ours(targets)
            leased = ours or self._lease(targets)
            leased.in_use = True
        try:
            name = leased.target.name
            # It may have changed while it was waited for.
            self._heed(leased, known[name] if ours else self.health.look([name])[name])
            station = self._ready(leased)
        except BaseException as error:
            leased.in_use = False
            if isinstance(error, _Barred) or (isinstance(error, _Broken) and give_up):
                self.release(leased.target)
            elif isinstance(error, _Broken):
                self._let_others(leased)
            raise
        return Board(
            station,
            on_error=lambda error: self._broke(leased, error),
            on_close=lambda: self._used(leased),
        )

    def _heed(self, leased: _Leased, health: Health) -> None:
        """How a board that is ours is now. Raises _Barred."""
        now = self.health.clock()
        if health.barred(now):
            raise _Barred
        leased.health = health
        leased.doubt |= health.due(now)

    def _ready(self, leased: _Leased) -> Station:
        """To the end of its boot. Raises _Broken for what is its own fault."""
        if leased.doubt:
            # Whatever broke: its console is opened anew, and it is switched off and on.
            with contextlib.suppress(InfrastructureError):
                leased.close_station()
        try:
            station = self._station(leased)
            _make_ready(station, leased)
        except InfrastructureError as error:
            if self._broke(leased, error):
                raise _Broken(leased.target, error) from error
            raise
        if leased.doubt:
            leased.doubt = False
            with self._noting():
                leased.health = self.health.probed(leased.target.name)
        return station

    def _station(self, leased: _Leased) -> Station:
        from pytest_hil.board.station import Station

        if leased.station is None:
            leased.station = Station(leased.lease.reach(leased.target), progress=self._progress)
            if leased.events is not None:
                leased.station.events = leased.events
        return leased.station

    def _used(self, leased: _Leased) -> None:
        """A test is through with a board. It stays ours, unless others wait for it."""
        if not leased.doubt:
            self._was_well(leased)
        leased.in_use = False
        self._check_lease(leased)
        self._let_others(leased)

    def _check_lease(self, leased: _Leased) -> None:
        """Raises LabError when somebody took the board away, and lets go of it."""
        from pytest_hil.lab.registry import LabError

        if why := leased.lease.lost:
            self.release(leased.target)
            raise LabError(f"the lease of {leased.target.name} was lost: {why}")

    def _let_others(self, leased: _Leased) -> None:
        """Give a board back that others wait for, or that nobody gets now: it can be checked."""
        name = leased.target.name
        if leased.health is not None and leased.health.state == "quarantined":
            self.release(leased.target)
        elif any(name in one.wants for one in self._lab.queue()):
            self._let_go.add(leased.target)
            self.release(leased.target)

    def _was_well(self, leased: _Leased) -> None:
        from pytest_hil.lab import health

        known = leased.health
        # Most often there is nothing to write down.
        if known is None or health.used(known, self.health.clock()) is not known:
            with self._noting():
                leased.health = self.health.used(leased.target.name)

    def _broke(self, leased: _Leased, error: InfrastructureError) -> bool:
        """Something broke while a board was ours: whether that says something of the board."""
        from pytest_hil.lab.health_book import sentence

        if not is_the_boards(error):
            return False
        leased.doubt = True
        if error is leased.error:
            return True  # a console that is gone says so again and again
        leased.error = error
        name = error.board = leased.target.name
        with self._noting():
            leased.health = found = self.health.failed(name, error.message)
            if found.state == "quarantined":
                self._say(f"{sentence(name, found)}; pytest-hil lab health {name}")
        return True

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """What cannot be written down is no reason to fail: a test has its own outcome."""
        from pytest_hil.lab.registry import LabError

        try:
            yield
        except LabError as error:
            self._say(f"what became of a board cannot be written down: {error.message}")

    def _ours(self, targets: Sequence[BoardTarget]) -> _Leased | None:
        """One that we have already. Raises LabError when a test has it already."""
        from pytest_hil.lab.registry import LabError

        mine = [self._leased[one] for one in targets if one in self._leased]
        for one in [one for one in mine if not one.in_use and one.lease.lost]:
            # Between two tests: neither was harmed.
            self._say(f"the lease of {one.target.name} was lost: {one.lease.lost}")
            self.release(one.target)
            mine.remove(one)
        free = [one for one in mine if not one.in_use]
        if mine and not free and len(mine) == len(targets):
            names = ", ".join(one.name for one in targets)
            raise LabError(f"{names} is open already: a test can have a board once")
        return free[0] if free else None

    def _lease(self, targets: Sequence[BoardTarget]) -> _Leased:
        # Who waits for a board has none: two who wait for each other's would do so for ever.
        for one in [one for one, leased in self._leased.items() if not leased.in_use]:
            self.release(one)
        ours_again = not self._let_go.isdisjoint(targets)
        lease = self._lab.acquire(
            [one.name for one in targets],
            purpose=self._purpose,
            wait=max(self._wait, _NEXT_TURN) if ours_again else self._wait,
            on_wait=self._progress,
            keeps=[one.name for one in self._leased],
        )
        target = next(one for one in targets if one.name == lease.board)
        self._let_go.discard(target)
        found = self._leased[target] = _Leased(target, lease)
        return found

    def give_way(self) -> None:
        """Give back what no test uses now and others wait for."""
        with self._lock:
            idle = [one for one in self._leased.values() if not one.in_use]
        for one in idle:
            self._let_others(one)

    def release(self, target: BoardTarget) -> None:
        """Give a board back, for others to have; nothing if it is not ours."""
        with self._lock:
            leased = self._leased.pop(target, None)
        if leased is not None:
            leased.close()

    def close(self) -> None:
        """Give all back. May be called twice."""
        with self._lock:
            leased, self._leased = list(self._leased.values()), {}
        with contextlib.ExitStack() as everything:
            for one in leased:
                everything.callback(one.close)


class _Broken(Exception):
    """A board broke; ``error`` is how."""

    def __init__(self, board: BoardTarget, error: InfrastructureError) -> None:
        super().__init__(str(error))
        self.board = board
        self.error = error


class _Barred(Exception):
    """A board came to quarantine while it was waited for."""


def is_the_boards(error: InfrastructureError) -> bool:
    """Whether an error tells something of a board, and not of this host, this user or the lab."""
    from pytest_hil.lab.registry import LabError

    return not isinstance(error, HostLacks | LabError)


def _make_ready(station: Station, leased: _Leased) -> None:
    """To the end of its boot, as ``between`` says for what another test has used."""
    between, leased.fresh = (station.target.between if not leased.fresh else "keep"), False
    if leased.doubt:
        station.restart()
    elif between == "cycle":
        station.cycle()
    elif between == "reset":
        station.reset()
    else:
        station.ready()
