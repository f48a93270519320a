"""A check: looks at one thing and says what it found; runs with a time limit, never raises."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pytest_hil.errors import HilError

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """``note``: works, but not as well as it could, or only in part. ``mend``: what to do."""

    status: Status
    text: str
    mend: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` raises HilError for a problem. ``timeout`` in seconds."""

    name: str
    look: Callable[[], Finding]
    timeout: float = 20.0


def ok(text: str, **facts: Any) -> Finding:
    return Finding("ok", text, facts=facts)


def note(text: str, mend: str = "", **facts: Any) -> Finding:
    return Finding("note", text, mend, facts)


def problem(text: str, mend: str = "", **facts: Any) -> Finding:
    return Finding("problem", text, mend, facts)


def perform(check: Check) -> Finding:
    """What a check finds; a problem when it breaks, and when it does not end."""
    answers: queue.SimpleQueue[Finding] = queue.SimpleQueue()
    # A daemon: one that hangs (a dead network file system, say) must not keep us from ending.
    threading.Thread(target=lambda: answers.put(_look(check)), daemon=True).start()
    try:
        return answers.get(timeout=check.timeout)
    except queue.Empty:
        return problem(f"no answer within {check.timeout:g} s: something hangs")


def _look(check: Check) -> Finding:
    try:
        return check.look()
    except HilError as error:
        return problem(error.message, error.mend)
    except BaseException as error:
        return problem(f"could not be checked: {type(error).__name__}: {error}")


def worst(findings: Sequence[Finding]) -> Status:
    """``ok`` for none."""
    order: tuple[Status, ...] = ("problem", "note")
    return next((status for status in order if any(f.status == status for f in findings)), "ok")
