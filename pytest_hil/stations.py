"""The boards that this process has: leased when a test needs one, kept while nobody else does."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_hil.config import BoardTarget
from pytest_hil.errors import ConfigError, InfrastructureError
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.board.board import Board
    from pytest_hil.board.station import Station
    from pytest_hil.lab.lease import Lab, Lease


@dataclass(slots=True)
class _Leased:
    """A board that is ours. ``fresh``: nobody has used it since."""

    lease: Lease
    station: Station
    in_use: bool = False
    fresh: bool = True

    def close(self) -> None:
        try:
            self.station.close()
        finally:
            self.lease.release()


class Stations:
    """Opens boards. ``wait``: seconds to wait for one that somebody else has; ``purpose`` is what
    they are told it is for. ``say`` gets what the user should know.
    """

    def __init__(
        self,
        lab: Lab,
        *,
        wait: float,
        purpose: str,
        progress: Progress = silent,
        say: Callable[[str], None] = silent,
    ) -> None:
        self._lab = lab
        self._wait = wait
        self._purpose = purpose
        self._progress = progress
        self._say = say
        self._lock = threading.RLock()
        self._leased: dict[BoardTarget, _Leased] = {}
        # What was given up in this run, and why: their tests go elsewhere.
        self._ill: dict[BoardTarget, InfrastructureError] = {}

    def open(self, targets: Sequence[BoardTarget]) -> Board:
        """One of these boards, at the end of its boot. It stays ours until :meth:`close`, or until
        somebody else waits for it.

        A board that breaks is given up for this run when there are others. Raises Busy when others
        have all of them, and what the last one broke with.
        """
        if len(targets) == 1:
            return self._open(targets)[1]
        while well := [one for one in targets if one not in self._ill]:
            board, opened = self._try(well)
            if opened is not None:
                return opened
            self._say(f"the board {board.name} is given up: {self._ill[board].message}")
        raise self._ill[targets[-1]]

    def _try(self, targets: Sequence[BoardTarget]) -> tuple[BoardTarget, Board | None]:
        try:
            return self._open(targets)
        except _Broken as broken:
            self._ill[broken.board] = broken.error
            return broken.board, None

    def _open(self, targets: Sequence[BoardTarget]) -> tuple[BoardTarget, Board]:
        from pytest_hil.board.board import Board

        with self._lock:
            leased = self._ours(targets) or self._lease(targets)
            leased.in_use = True
        station, target = leased.station, leased.station.target
        try:
            _make_ready(leased)
        except BaseException as error:
            leased.in_use = False
            if isinstance(error, InfrastructureError) and len(targets) > 1:
                self.release(target)
                raise _Broken(target, error) from error
            raise
        return target, Board(station, on_close=lambda: self._used(leased))

    def _used(self, leased: _Leased) -> None:
        """A test is through with a board. It stays ours, unless others wait for it."""
        leased.in_use = False
        target = leased.station.target
        if any(target.name in one.wants for one in self._lab.queue()):
            self.release(target)

    def _ours(self, targets: Sequence[BoardTarget]) -> _Leased | None:
        """One that we have already. Raises InfrastructureError when a test has it already."""
        mine = [self._leased[one] for one in targets if one in self._leased]
        free = [one for one in mine if not one.in_use]
        if not free and len(mine) == len(targets):
            names = ", ".join(one.name for one in targets)
            raise InfrastructureError(f"{names} is open already: a test can have a board once")
        return free[0] if free else None

    def _lease(self, targets: Sequence[BoardTarget]) -> _Leased:
        from pytest_hil.board.station import Station

        # Who waits for a board has none: two who wait for each other's would do so for ever.
        for one in [one for one, leased in self._leased.items() if not leased.in_use]:
            self.release(one)
        lease = self._lab.acquire(
            [one.name for one in targets],
            purpose=self._purpose,
            wait=self._wait,
            on_wait=self._progress,
        )
        target = next(one for one in targets if one.name == lease.board)
        try:
            station = Station(target, progress=self._progress)
        except BaseException as error:
            lease.release()
            broken = isinstance(error, InfrastructureError) and not isinstance(error, ConfigError)
            if broken and len(targets) > 1:
                raise _Broken(target, error) from error  # type: ignore[arg-type]
            raise
        found = self._leased[target] = _Leased(lease, station)
        return found

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
    """A board of several broke; ``error`` is how."""

    def __init__(self, board: BoardTarget, error: InfrastructureError) -> None:
        super().__init__(str(error))
        self.board = board
        self.error = error


def _make_ready(leased: _Leased) -> None:
    """To the end of its boot, as ``between`` says for what another test has used."""
    station = leased.station
    between, leased.fresh = (station.target.between if not leased.fresh else "keep"), False
    if between == "cycle":
        station.off()
        station.boot()
    elif between == "reset":
        station.reset()
    else:
        station.ready()
