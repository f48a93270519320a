"""WARN_ON and its kin (kernel/panic.c). A ``WARNING:`` of anything else is only a message."""

from __future__ import annotations

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.machinery import is_machinery
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_BEFORE = frozenset({"list", "refcount", "slab", "usercopy", "fortify", "debugobjects"})


def _title(body: Body) -> str:
    named = body.match[1] or ""
    found = names.symbol(named)
    if found and (found.module or not is_machinery(found.function)):
        return f"WARNING in {found}"
    return f"WARNING{body.where(named)}"


def _cut(body: Body) -> str:
    return f"report without a header: {names.normal(body.message) or 'nothing'}"


def _rule(start: str, header: str, *, printk_only: bool) -> Rule:
    return Rule(
        kind="warning",
        severity=Severity.WARNING,
        starts=(start,),
        header=Pattern(header),
        title=_title,
        end=Pattern(r"---\[ end trace"),
        refines=frozenset({"cut"}),
        continues=_BEFORE,
        printk_only=printk_only,
    )


RULES = (
    # Up to 6.16: CPU: 0 PID: 1 at mm/page.c:1 f+0x1/0x2 [module]
    _rule(
        "WARNING: CPU: ",
        r"WARNING: CPU: \d+ PID: \d+ at (?:\S+?:\d+ ?)?(\S+\+0x\S+(?: \[[\w-]+\])?)?",
        printk_only=False,
    ),
    # After it: mm/page.c:1 at f+0x1/0x2, CPU#0: insmod/1
    _rule(
        "WARNING: ",
        r"WARNING: \S+?:\d+ at (\S+?(?: \[[\w-]+\])?), CPU#\d+",
        printk_only=True,
    ),
    Rule(
        kind="cut",
        severity=Severity.WARNING,
        starts=("------------[ cut here ]------------",),
        header=Pattern(r"-+\[ cut here \]-+$"),
        title=_cut,
        # These are said before the mark.
        continues=_BEFORE,
        end=Pattern(r"---\[ end trace"),
        patience=1,
    ),
)
