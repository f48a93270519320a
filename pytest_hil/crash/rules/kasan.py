"""KASAN: memory that is not the kernel's to touch (mm/kasan/report.c)."""

from __future__ import annotations

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_ACCESS = Pattern(r"(Read|Write|Free) of (?:size|addr)")


def _title(body: Body) -> str:
    access = next(filter(None, map(_ACCESS.match, body.messages)), None)
    how = f" {access[1].lower()}" if access and access[1] != "Free" else ""
    return f"KASAN: {body.match[1]}{how}{body.where(body.match[2] or '', pc=False)}"


RULES = (
    Rule(
        kind="kasan",
        severity=Severity.ERROR,
        starts=("BUG: KASAN: ",),
        # Up to 4.8 the address is in the first line: "… at addr ffff8800…".
        header=Pattern(r"BUG: KASAN: ([\w-]+(?: or [\w-]+)?)(?: (?:in|on) (\S+(?: \[[\w-]+\])?))?"),
        title=_title,
        end=Pattern(r"={20,}$"),
        body=Pattern(
            r"(?:Read|Write|Free) of|Pointer tag|Memory state|The buggy|The bug |Allocated "
            r"|Freed |Last pot"
            r"|Object |page[ :_]|flags: |which belongs|located |head: |>|\s*\^|this frame"
            r"|addr |\s+\["
        ),
        refines=frozenset({"cut"}),
    ),
)
