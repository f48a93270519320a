"""KFENCE: guarded allocations, sampled (mm/kfence/report.c)."""

from __future__ import annotations

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule


def _title(body: Body) -> str:
    return f"KFENCE: {body.match[1]}{body.where(body.match[2] or '', pc=False)}"


RULES = (
    Rule(
        kind="kfence",
        severity=Severity.ERROR,
        starts=("BUG: KFENCE: ",),
        header=Pattern(r"BUG: KFENCE: ([\w -]+?)(?: in (\S+(?: \[[\w-]+\])?))?$"),
        title=_title,
        end=Pattern(r"={20,}$"),
        body=Pattern(
            r"Out-of-bounds|Use-after-free|Corrupted memory|Invalid |kfence-#|allocated by|freed by"
        ),
    ),
)
