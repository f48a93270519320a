"""UBSAN of the kernel: undefined behaviour (lib/ubsan.c).

Up to 4.20 all kinds are "Undefined behaviour"; up to 6.6 a ruler ends a report, then an end trace.
"""

from __future__ import annotations

import re

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.rule import Body, Rule


def _title(body: Body) -> str:
    return f"UBSAN: {body.match[1]}{body.where(pc=False)}"


RULES = (
    Rule(
        kind="ubsan",
        severity=Severity.ERROR,
        starts=("UBSAN: ",),
        header=re.compile(r"UBSAN: ([\w -]+?) in \S+?:\d+(?::\d+)?$"),
        title=_title,
        end=re.compile(r"={20,}$|---\[ end trace"),
        body=re.compile(
            r"(?:index|shift|signed|unsigned|load of|member access|division|null pointer"
            r"|variable len"
            r"|load|store|call|\S+ [-+*/] |left shift|negation|value|execution|object)\b|-?\d+ "
        ),
        refines=frozenset({"cut"}),
    ),
)
