"""Data that somebody has overwritten: lists, reference counts, slabs, objects, copies."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_CUT = frozenset({"cut"})
_END = Pattern(r"---\[ end trace")


def _slab(body: Body) -> str:
    # The objects' cache says whose memory it is; the trace only, who noticed.
    return f"slab corruption: {body.match[1]}: {names.normal(body.match[2])}"


def _usercopy(body: Body) -> str:
    said = re.sub(r"\s*\(.*|!$", "", body.match[1])
    return f"usercopy: {names.normal(said)}{body.where()}"


def _fortify(body: Body) -> str:
    # What checks strlen calls itself __fortify_strlen, since Linux 5.18.
    called = (body.match[1] or body.match[2]).removeprefix("__fortify_")
    return f"buffer overflow in a {called}{body.where()}"


RULES = (
    Rule(
        kind="list",
        severity=Severity.ERROR,
        starts=("list_add ", "list_del ", "list_add.", "list_add double add"),
        header=Pattern(r"(list_(?:add|del))(?: corruption|\. | double add|: )"),
        title=lambda body: f"{body.match[1]} corruption{body.where()}",
        end=_END,
        body=Pattern(r".*\[#\d+\]"),
        refines=_CUT,
        patience=8,
    ),
    Rule(
        kind="refcount",
        severity=Severity.ERROR,
        starts=("refcount_t: ",),
        header=Pattern(r"refcount_t: (.+?)[.;]? ?(?:use-after-free|leaking memory)?\.?$"),
        title=lambda body: f"refcount: {names.normal(body.match[1])}{body.where()}",
        end=_END,
        refines=_CUT,
    ),
    Rule(
        kind="debugobjects",
        severity=Severity.ERROR,
        starts=("ODEBUG: ",),
        header=Pattern(
            r"ODEBUG: (\S.*?) (?:\(active state \d+\) )?object(?:: \S+ object)? type: (\w+)"
        ),
        title=lambda body: f"ODEBUG: {body.match[1]} {body.match[2]}{body.where()}",
        end=_END,
        refines=_CUT,
    ),
    Rule(
        kind="slab",
        severity=Severity.ERROR,
        starts=("BUG ",),
        # mm/slub.c: BUG kmalloc-64 (Tainted: G    B  ): Redzone overwritten
        header=Pattern(r"BUG ([\w:.,-]+) \((?:Not tainted|Tainted: .*?)\): (?!kasan: )(.+)"),
        title=_slab,
        body=Pattern(
            r"(?:INFO|FIX|Slab|Object|Redzone|Padding|Bytes b4|Freepointer|Allocated|Freed"
            r"|Disabling)\b"
            r"|0x[0-9a-f]+-0x|\S+ (?:Object|Redzone|Padding|Bytes)"
        ),
    ),
    Rule(
        kind="slab",
        severity=Severity.ERROR,
        starts=("slab error in ", "Slab corruption", "cache_from_obj"),
        header=Pattern(
            r"(?:slab error in \S+: cache `([^']+)': (.+)|Slab corruption.*: (\S+) start=)"
        ),
        title=lambda body: (
            "slab corruption: "
            + (
                f"{body.match[1]}: {names.normal(body.match[2])}"
                if body.match[1]
                else body.match[3]
            )
        ),
    ),
    Rule(
        kind="usercopy",
        severity=Severity.ERROR,
        starts=("usercopy: ",),
        header=Pattern(r"usercopy: (Kernel memory .*)"),
        title=_usercopy,
        end=_END,
        body=Pattern(r".*\[#\d+\]"),
        refines=_CUT,
        patience=8,
    ),
    Rule(
        kind="fortify",
        severity=Severity.ERROR,
        starts=("detected buffer overflow in ", "memcpy: detected ", "strnlen: detected "),
        header=Pattern(r"(?:detected buffer overflow in (\w+)|(\w+): detected buffer overflow)"),
        title=_fortify,
        end=_END,
        refines=_CUT,
        patience=8,
    ),
)
