"""How a board is: healthy, suspect, quarantined or on probation, and what changes that.

No files, no clock: facts and the time in, facts out::

    healthy ──error──▶ suspect ──error, until there are `after` in a row──▶ quarantined
       ▲                  │                                                │         ▲
       ├──a test is well──┘                        its time has come, and  │         │
       │                                           a probe gets it booted  ▼       error
       └────────────────────────a test is well────────────────────── probation ─────┘

Only errors of our side count (:class:`pytest_hil.errors.InfrastructureError`), never what a test
asserts. Each time that a board comes back to quarantine it stays there twice as long.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

State = Literal["healthy", "suspect", "quarantined", "probation"]
STATES: tuple[State, ...] = get_args(State)

# What is kept of a reason, in characters: it stands in a line.
_REASON = 300
# A board that is well is written down this often (seconds), not after each test.
_NEWS = 60.0


@dataclass(frozen=True, slots=True)
class Policy:
    """``after``: errors in a row that put a board in quarantine, none of them more than ``window``
    seconds after the one before. ``pause``: seconds until it is tried again, doubled each time, up
    to ``longest``.
    """

    after: int = 3
    window: float = 3600.0
    pause: float = 300.0
    longest: float = 4 * 3600.0


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of a board. Times are the wall clock's, in seconds; 0: never.

    ``errors`` in a row, ``reason`` is the last one's. ``since``: when it came to this state.
    ``retry_at``: when a quarantined board is tried again; 0: when somebody says so, as ``by`` (who
    put it there by hand) wanted it. ``pause``: how long the last quarantine was to last.
    """

    state: State = "healthy"
    errors: int = 0
    reason: str = ""
    since: float = 0.0
    last_error: float = 0.0
    last_good: float = 0.0
    retry_at: float = 0.0
    pause: float = 0.0
    by: str = ""

    def barred(self, now: float) -> bool:
        """Whether nobody gets it now: it is in quarantine, and its time has not come."""
        if self.state != "quarantined":
            return False
        # A clock that was set back must not keep it there for years.
        return bool(self.by) or 0 < self.retry_at - now <= self.pause

    def due(self, now: float) -> bool:
        """Whether whoever gets it now has to find out first whether it is well again."""
        return self.state == "quarantined" and not self.barred(now)


def failed(health: Health, reason: str, now: float, policy: Policy) -> Health:
    """Something of it broke: its power, its console, its boot, its shell."""
    in_a_row = health.errors if now - health.last_error <= policy.window else 0
    if health.state in ("quarantined", "probation"):
        # However long ago the others were: it has never been well since.
        in_a_row = health.errors
    found = replace(health, errors=in_a_row + 1, reason=_short(reason), last_error=now)
    if health.barred(now):
        # Somebody tried it all the same, or still had it.
        return found
    if health.state in ("quarantined", "probation"):
        return _quarantined(found, now, min(2 * health.pause, policy.longest) or policy.pause)
    if found.errors >= policy.after:
        return _quarantined(found, now, policy.pause)
    if health.state == "suspect":
        return found
    return replace(found, state="suspect", since=now)


def probed(health: Health, now: float) -> Health:
    """It was switched off and on, and has booted: that it can be used is not known by that."""
    found = replace(health, last_good=now)
    if health.state == "quarantined" and not health.by:
        return replace(found, state="probation", since=now, retry_at=0.0)
    return found


def used(health: Health, now: float) -> Health:
    """A test is through with it, and nothing of it broke. The same object when that is no news."""
    if health.state == "quarantined":
        # Put there while the test ran.
        return replace(health, last_good=now)
    if health.state != "healthy":
        return Health(since=now, last_good=now, last_error=health.last_error)
    if 0 <= now - health.last_good < _NEWS:
        return health
    return replace(health, last_good=now)


def quarantined(health: Health, reason: str, by: str, now: float) -> Health:
    """Somebody takes it out of use, until somebody lifts it."""
    since = health.since if health.state == "quarantined" else now
    return replace(
        health,
        state="quarantined",
        reason=_short(reason),
        since=since,
        retry_at=0.0,
        pause=0.0,
        by=by or "?",
    )


def cleared(health: Health, now: float) -> Health:
    """Somebody says that it is well."""
    return Health(since=now, last_good=health.last_good, last_error=health.last_error)


def _quarantined(health: Health, now: float, pause: float) -> Health:
    # It stays there since it came, however often it is tried in vain.
    since = health.since if health.state == "quarantined" else now
    return replace(
        health, state="quarantined", since=since, pause=pause, retry_at=now + pause, by=""
    )


def _short(reason: str) -> str:
    line = next((one.strip() for one in reason.splitlines() if one.strip()), "it broke")
    return line if len(line) <= _REASON else f"{line[: _REASON - 1]}…"
