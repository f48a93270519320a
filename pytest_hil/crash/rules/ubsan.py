"""UBSAN of the kernel: undefined behaviour (lib/ubsan.c).

Up to 4.20 all kinds are "Undefined behaviour"; up to 6.6 a ruler ends a report, then an end trace.
"""

from __future__ import annotations

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule


def _title(body: Body) -> str:
    return f"UBSAN: {body.match[1]}{body.where(pc=False)}"


RULES = (
    Rule(
        kind="ubsan",
        severity=Severity.ERROR,
        starts=("UBSAN: ",),
        header=Pattern(r"UBSAN: ([\w -]+?) in \S+?:\d+(?::\d+)?$"),
        title=_title,
        end=Pattern(r"={20,}$|---\[ end trace"),
        body=Pattern(
            r"(?:index|shift|signed|unsigned|load of|member access|division|null pointer"
            r"|variable len"
            r"|load|store|call|\S+ [-+*/] |left shift|negation|value|execution|object)\b|-?\d+ "
        ),
        refines=frozenset({"cut"}),
    ),
)
