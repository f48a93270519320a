"""Processors and tasks that do not get on: lockups, stalls, hangs."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, fixed

_STALL = Pattern(
    r"\s*\d+-\.|\s*\(t=|\s*\(detected by|rcu: |\s*Tasks blocked|Sending NMI|NMI backtrace"
    r"|Task dump|"
    r"task:|.*R  running task|rcu_\w+ kthread|\s*\(No |\s*\d+-[.O!]|RCU grace-period|Unless"
    r"|\tP\d|.*state:"
)


def _hung(body: Body) -> str:
    where = body.where(pc=False)
    return f"task hung{where}" if where else f"task hung: {names.task(body.match[1])}"


RULES = (
    Rule(
        kind="soft-lockup",
        severity=Severity.ERROR,
        starts=("watchdog: BUG: soft lockup", "NMI watchdog: BUG: soft lockup", "BUG: soft lockup"),
        header=Pattern(r"(?:NMI )?(?:watchdog: )?BUG: soft lockup - CPU#\d+ stuck for"),
        title=fixed("soft lockup"),
        patience=5,
    ),
    Rule(
        kind="hard-lockup",
        severity=Severity.ERROR,
        starts=(
            "watchdog: Watchdog detected hard",
            "NMI watchdog: Watchdog detected hard",
            "Watchdog det",
        ),
        header=Pattern(r"(?:NMI )?(?:watchdog: )?Watchdog detected hard LOCKUP on cpu"),
        title=fixed("hard lockup"),
        body=Pattern(r"Shutting down cpus|irq event"),
        patience=5,
    ),
    Rule(
        kind="hard-lockup",
        severity=Severity.ERROR,
        starts=("watchdog: CPU", "Watchdog CPU"),
        header=Pattern(
            r"[wW]atchdog:? CPU:? ?\d+ (?:detected hard LOCKUP|Hard LOCKUP|self-detected)"
        ),
        title=fixed("hard lockup"),
        patience=5,
    ),
    Rule(
        kind="rcu-stall",
        severity=Severity.ERROR,
        starts=("rcu: INFO: rcu", "INFO: rcu", "rcu: INFO: Stall"),
        header=Pattern(
            r"(?:rcu: )?INFO: (?:rcu\w* (?:self-)?detected|rcu\w* detected (?:expedited )?stalls?)"
        ),
        title=fixed("RCU stall"),
        body=_STALL,
        patience=8,
    ),
    Rule(
        kind="hung-task",
        severity=Severity.ERROR,
        starts=("INFO: task ",),
        header=Pattern(
            r"INFO: task (\S.*?):\d+ (?:blocked (?:on .*? )?for more|<reader> blocked|is blocked)"
        ),
        title=_hung,
        body=Pattern(
            r"\s+(?:Not tainted|Tainted)|\"echo 0|task:|.*(?:state:D|  D )|Showing all|INFO: task"
        ),
        patience=5,
    ),
    Rule(
        kind="workqueue",
        severity=Severity.ERROR,
        starts=("BUG: workqueue lockup",),
        header=Pattern(r"BUG: workqueue lockup - pool"),
        title=lambda body: f"workqueue lockup{_work(body)}",
        body=Pattern(
            r"Showing (?:busy|all|backtraces)|workqueue |\s+(?:pwq|pool|in-flight|pending|inactive)"
        ),
        lone=True,
        patience=5,
    ),
    Rule(
        kind="workqueue",
        severity=Severity.ERROR,
        starts=("BUG: workqueue leaked",),
        header=Pattern(r"BUG: workqueue leaked (?:lock|atomic)"),
        title=lambda body: f"workqueue leaked a lock{_last(body)}",
        body=Pattern(r"\s+last function: "),
    ),
)


def _work(body: Body) -> str:
    """What runs in the pool that is stuck."""
    for text in body.messages:
        found = re.match(r"\s+in-flight: \S+?:(\w[\w.]*)", text)
        if found:
            return f" in {names.function(found[1])}"
    return ""


def _last(body: Body) -> str:
    for text in body.messages:
        found = re.match(r"\s+last function: (\S+)", text)
        if found:
            return f" in {names.function(found[1].partition('+')[0])}"
    return body.where(pc=False)
