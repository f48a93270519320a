"""KMSAN: values that nobody has set (mm/kmsan/report.c)."""

from __future__ import annotations

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule


def _title(body: Body) -> str:
    return f"KMSAN: {body.match[1]}{body.where(body.match[2] or '', pc=False)}"


RULES = (
    Rule(
        kind="kmsan",
        severity=Severity.ERROR,
        starts=("BUG: KMSAN: ",),
        header=Pattern(r"BUG: KMSAN: ([\w-]+)(?: in (\S+(?: \[[\w-]+\])?))?"),
        title=_title,
        end=Pattern(r"={20,}$"),
        body=Pattern(r"Uninit was|Local variable|Bytes? \d|Memory access of|Data copied to|<Zero"),
    ),
)
