"""Memory that is lost (kmemleak) or used up (the OOM killer)."""

from __future__ import annotations

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, plain


def _oom(body: Body) -> str:
    killed = Pattern(r"(Memory cgroup out|Out) of memory: Kill(?:ed)? process \d+ \((.*?)\)")
    for text in body.messages:
        found = killed.match(text)
        if found:
            where = " in a cgroup" if found[1].startswith("Memory") else ""
            return f"out of memory{where}: killed {names.task(found[2])}"
    return "out of memory"


RULES = (
    Rule(
        kind="oom",
        severity=Severity.WARNING,
        needles=(" invoked oom-killer: ",),
        header=Pattern(r"\S.*? invoked oom-killer: gfp_mask="),
        title=_oom,
        end=Pattern(
            r".*[oO]ut of memory: Kill(?:ed)? process|Out of memory and no killable"
            r"|.*System is dead"
        ),
        body=Pattern(
            r"Mem-Info|active_anon| (?:active|inactive|unevictable|slab|mapped|free|sec_)"
            r"|Node |lowmem_reserve"
            r"|\d+ (?:total|pages|reserved)|[\d ]+ (?:total|pages|reserved)|Swap |Free swap"
            r"|Total swap|Tasks state"
            r"|\[ *pid *\]|\[ *\d+\]|oom-kill:|oom_reaper|Killed process|Memory cgroup|memory"
            r"|swap|kmem|Unreclaimable"
            r"|anon |file |Swap|\w+ +\d+(?:KB| )|Tasks in|oom_score|cache:|rss:"
        ),
        patience=6,
    ),
    Rule(
        kind="memory-leak",
        severity=Severity.WARNING,
        starts=("unreferenced object 0x",),
        # What /sys/kernel/debug/kmemleak shows: it is read, not said by the kernel.
        header=Pattern(r"unreferenced object 0x[0-9a-f]+ \(size (\d+)\):"),
        title=lambda body: f"memory leak{body.where(pc=False)}",
        body=Pattern(r"\s+(?:comm |hex dump|backtrace|[0-9a-f]{2} |\.\.\.)"),
        patience=1,
    ),
    Rule(
        kind="memory-leak",
        severity=Severity.WARNING,
        starts=("kmemleak: ",),
        header=Pattern(r"kmemleak: \d+ new suspected memory leaks"),
        title=plain("memory leaks suspected"),
        lone=True,
        patience=1,
    ),
)
