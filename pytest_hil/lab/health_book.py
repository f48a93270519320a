"""What is known of the boards' health, in the lab's registry: kept across runs, shared by them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from pytest_hil.errors import visible
from pytest_hil.lab import health, look
from pytest_hil.lab.health import STATES, Health, Policy
from pytest_hil.lab.lease import DIRECTORY, board_name, default_directory, user_name
from pytest_hil.lab.registry import LabError, Registry

# To come to these, and to leave them, stands in the lab's history.
_TOLD = frozenset({"quarantined", "probation"})
# No time of a clock (seconds), whatever stands there.
_NEVER = 1e11


class Quarantined(LabError):
    """No board that fits may be used. ``boards``: what is known of each."""

    def __init__(self, boards: Mapping[str, Health]) -> None:
        lines = [sentence(name, one) for name, one in boards.items()]
        first = next(iter(boards))
        if len(lines) == 1:
            message = lines[0]
        else:
            message = "all boards that fit are quarantined:" + "".join(f"\n    {x}" for x in lines)
        super().__init__(
            message,
            mend=f"pytest-hil lab health {first} --check tries it now; "
            f"pytest-hil lab health {first} --clear lifts it",
        )
        self.boards = dict(boards)
        self.board = first


class HealthBook:
    """Every change is one transaction behind the lab's gate, so that several may write at once.

    ``directory`` None: the user's own lab. Holds nothing open. Raises LabError.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        policy: Policy | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.directory = default_directory() if directory is None else directory.absolute()
        self.policy = policy or Policy()
        self.clock = clock

    def look(self, boards: Sequence[str] | None = None) -> dict[str, Health]:
        """Each of these boards, of which there may be nothing to know; None: all that are known."""
        known: dict[str, Health] = {}
        if (self.directory / "registry.sqlite").exists():
            with self._rows() as rows:
                known = {name: _read(text) for name, text in rows.health().items()}
        return known if boards is None else {name: known.get(name, Health()) for name in boards}

    def failed(self, board: str, reason: str) -> Health:
        """Something of it broke."""
        return self._change(
            board, lambda old, now: health.failed(old, _of(board, reason), now, self.policy)
        )

    def probed(self, board: str) -> Health:
        """It was switched off and on, and has booted."""
        return self._change(board, health.probed)

    def used(self, board: str) -> Health:
        """A test is through with it, and nothing of it broke."""
        return self._change(board, health.used)

    def quarantine(self, board: str, reason: str) -> Health:
        """Out of use, until :meth:`clear`."""
        who = user_name()
        return self._change(board, lambda old, now: health.quarantined(old, reason, who, now))

    def clear(self, board: str) -> Health:
        """As if it had never been ill."""
        return self._change(board, health.cleared)

    def _change(self, board: str, change: Callable[[Health, float], Health]) -> Health:
        board_name(board)
        with self._rows() as rows:
            text = rows.health().get(board, "")
            old = _read(text)
            new = change(old, self.clock())
            if new != old:
                # What a newer pytest-hil has written beside is kept.
                rows.set_health(board, json.dumps({**_object(text), **asdict(new)}))
                if new.state != old.state and _TOLD & {new.state, old.state}:
                    rows.health_changed(new.state, board, user_name(), new.reason)
        return new

    @contextlib.contextmanager
    def _rows(self) -> Iterator[Registry]:
        try:
            with look.at(self.directory, 0o700, ()) as seen:
                yield seen.registry
                seen.done()
        except OSError as error:
            raise LabError(
                f"the lab's directory {self.directory} cannot be used: {error}",
                mend=f"make it writable, or use another one: {DIRECTORY}=DIR",
            ) from error


def sentence(board: str, one: Health, *, now: float | None = None) -> str:
    """``rig1 is quarantined since 12:03: did not reach shell (3 times); next try 12:13``."""
    if one.state == "healthy":
        return f"{board} is healthy"
    times = f" ({one.errors} times)" if one.errors > 1 else ""
    state = "on probation" if one.state == "probation" else one.state
    text = f"{board} is {state} since {clock(one.since, now)}"
    if one.by:
        text += f" by {visible(one.by)}: {visible(one.reason)}; until it is lifted"
    elif one.reason:
        text += f": {visible(one.reason)}{times}"
    if one.retry_at:
        text += f"; next try {clock(one.retry_at, now)}"
    return text


def clock(at: float, now: float | None = None) -> str:
    """A time of the wall clock: ``12:03`` if it is today's."""
    if not at:
        return "-"
    now = time.time() if now is None else now
    local = time.localtime(at)
    today = local[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", local)


def _of(board: str, reason: str) -> str:
    """A reason without what stands beside it anyway, and without what follows it."""
    line = reason.strip().partition("\n")[0]
    return line.removeprefix(f"the board {board} ").removesuffix("; the console's last lines:")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _read(text: str) -> Health:
    """What a row says, as far as it is understood: it may be of another version, or damaged."""
    facts = _object(text)
    known: dict[str, Any] = {}
    for field in fields(Health):
        value, default = facts.get(field.name), field.default
        if isinstance(default, float):
            if isinstance(value, int | float) and 0 <= value < _NEVER:
                known[field.name] = float(value)
        elif type(value) is type(default) and value != "":
            known[field.name] = value
    if known.get("state", "healthy") not in STATES:
        # A newer one's word: not for nothing.
        known["state"] = "suspect"
    return Health(**known)
