"""KCSAN: data races (kernel/kcsan/report.c). It sorts the two functions itself."""

from __future__ import annotations

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule


def _title(body: Body) -> str:
    sides = [
        names.symbol(each) or names.function(each) for each in body.match[2][:1024].split(" / ")[:2]
    ]
    return f"KCSAN: {body.match[1]} in {' / '.join(map(str, sides))}"


RULES = (
    Rule(
        kind="kcsan",
        severity=Severity.WARNING,
        starts=("BUG: KCSAN: ",),
        header=Pattern(r"BUG: KCSAN: ((?:assert: )?[\w-]+) in (\S.*)"),
        title=_title,
        end=Pattern(r"={20,}$"),
        body=Pattern(
            r"(?:assert no |race at |read|write|value changed|Reported by Kernel|bits changed)"
        ),
    ),
)
