"""Programs that crash, as the kernel reports it (arch/*/mm/fault.c, traps.c)."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_IN = Pattern(r".*? in ([^\s\[]+)\[")


def _title(body: Body) -> str:
    program = names.task(body.match[1])
    what = (
        re.sub(r"unhandled |level \d |\(\d+\)", "", body.match[2]).strip().replace("segfault", "")
    )
    inside = _IN.match(body.match.string)
    where = f" in {inside[1]}" if inside and inside[1] != body.match[1] else ""
    return f"{names.normal(what) or 'segfault'} of {program}{where}"


def _rule(starts: tuple[str, ...], needles: tuple[str, ...], header: str) -> Rule:
    return Rule(
        kind="segfault",
        severity=Severity.USER,
        starts=starts,
        needles=needles,
        header=Pattern(header),
        title=_title,
        lone=True,
        printk_only=True,
        patience=1,
    )


RULES = (
    _rule((), ("]: segfault at ",), r"(\S.*?)\[\d+\]: (segfault) at [0-9a-f]+ ip "),
    _rule(
        ("traps: ",),
        (),
        r"traps: (\S.*?)\[\d+\] (?:trap )?([a-z][\w ]+?)(?: in \S+)? ip:[0-9a-f]+ sp:",
    ),
    _rule(
        (),
        ("]: unhandled ",),
        r"(\S.*?)\[\d+\]: (unhandled (?:signal \d+|.*? fault|exception.*?)) ",
    ),
    _rule((), (": unhandled page fault",), r"(\S.*?): (unhandled page fault) \(\d+\) at"),
)
