"""Lockdep (kernel/locking/lockdep.c) and its checks of RCU (kernel/rcu, lockdep_rcu_suspicious).

Up to 4.9 the first lines are ``[ INFO: … ]`` and ``[ BUG: … ]``, then ``WARNING: …``.
A report has no end of its own: the trace is the last of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_HELD_AT_EXIT = r"\S.*? still has locks held!"
# What the kernel says, and how we call it.
_SAYS = {
    r"possible circular locking dependency detected": "circular locking",
    r"possible recursive locking detected": "recursive locking",
    r"inconsistent lock state": "inconsistent lock state",
    r"\w+-safe -> \w+-unsafe lock order detected": "irq-unsafe lock order",
    r"possible irq lock inversion dependency detected": "irq lock inversion",
    r"bad unlock balance detected!": "bad unlock",
    r"bad contention detected!": "bad contention",
    r"held lock freed!": "held lock freed",
    r"Invalid wait context": "invalid wait context",
    r"lock held when returning to user space!": "lock held when returning to user space",
    _HELD_AT_EXIT: "locks held at exit",
    r"nested lock was not taken": "nested lock was not taken",
    r"suspicious RCU usage\.?": "suspicious RCU usage",
    r"trying to register non-static key\.?": "non-static key",
    r"[\w\[\]/:. -]+ has active contexts at unregister": "unregistered key in use",
}
_TAKEN = Pattern(r"\s*(?:\w{8,16}|\(|\S+ is trying to release).* at:\s*(.*)")
_STARTS = (
    *("WARNING: possible ", "WARNING: inconsistent lock", "WARNING: bad ", "WARNING: held lock"),
    *("WARNING: HARDIRQ-", "WARNING: SOFTIRQ-", "WARNING: RECLAIM_FS-", "WARNING: lock held when"),
    *("WARNING: nested lock", "WARNING: suspicious RCU", "INFO: trying to register", "[ INFO: "),
    "[ BUG: ",
)


_BODY = Pattern(
    r".* (?:is trying to|is leaving|is freeing|just changed|takes:|already holding"
    r"|depends on)"
    r"|\S+ (?:Not tainted|Tainted)|other info|the existing|-> #|\s+Possible unsafe"
    r"|\s+Chain exists"
    r"|\s+CPU0|\s+(?:----|lock\(|<Interrupt>|\*\*\*|hardirqs|softirqs)|but |and "
    r"|which |this |the |due to"
    r"|inconsistent|\{\S+\} state|\.\.\.|context-|1 lock|\d+ locks|rcu_scheduler"
    r"|RCU used|\s+ffff|\s*$"
    r"|\S+:\d+ \S.*|-{4,}|turning off|INFO: |irqs? |you didn|maybe|stack of|\S+ Not"
)
_HELD = Pattern(r"\s*#0: .* at: (.*)")


def _lock_taken_in(messages: Sequence[str]) -> str:
    """Where the lock was taken that this is about: ``… is trying to acquire lock:``, ``at: f``."""
    following = [*messages[1:], ""]
    for text, then in zip(messages, following, strict=True):
        found = _TAKEN.match(text)
        if found:
            return str(names.symbol(found[1] or then) or "")
    held = next(filter(None, map(_HELD.match, messages)), None)
    return str(names.symbol(held[1]) or "") if held else ""


def _title(body: Body) -> str:
    said = next(text for says, text in _SAYS.items() if re.fullmatch(says, body.match[1]))
    named = _lock_taken_in(body.messages)
    if named and "RCU" not in said:
        return f"lockdep: {said} in {named}"
    return f"lockdep: {said}{body.where(pc=False)}"


def _rule(*starts: str, header: str, printk_only: bool = False) -> Rule:
    return Rule(
        kind="lockdep",
        severity=Severity.ERROR,
        starts=starts,
        header=Pattern(header),
        title=_title,
        body=_BODY,
        printk_only=printk_only,
        patience=6,
    )


RULES = (
    _rule(*_STARTS, header=rf"(?:\[ )?(?:WARNING|INFO|BUG): ({'|'.join(_SAYS)})(?: \])?$"),
    # These begin with the name of a task.
    _rule("WARNING: ", header=rf"WARNING: ({_HELD_AT_EXIT})$", printk_only=True),
)
