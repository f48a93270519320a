"""BUG() and the checks that say ``BUG: …`` without stopping."""

from __future__ import annotations

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, fixed

_END = Pattern(r"---\[ end trace")


def _bug(body: Body) -> str:
    found = body.where()
    # Without a frame, the file says at least something; its line differs between builds.
    return f"kernel BUG{found}" if found else f"kernel BUG at {body.match[1]}"


def _generic(body: Body) -> str:
    return f"BUG: {names.normal(body.match[1])}{body.where()}"


def _line(kind: str, start: str, header: str, text: str, body: str = "") -> Rule:
    return Rule(
        kind=kind,
        severity=Severity.ERROR,
        starts=(start,),
        header=Pattern(header),
        title=fixed(text, pc=False),
        body=Pattern(body) if body else None,
    )


RULES = (
    Rule(
        kind="bug",
        severity=Severity.ERROR,
        starts=("kernel BUG at ", "Kernel BUG at ", "BUG: failure at "),
        header=Pattern(r"(?:[kK]ernel BUG|BUG: failure) at (\S+?):\d+"),
        title=_bug,
        end=_END,
        body=Pattern(r"invalid opcode|.*\[#\d+\]"),
        refines=frozenset({"cut"}),
        continues=frozenset({"list", "slab", "usercopy", "fortify", "page"}),
        patience=8,
    ),
    _line(
        "atomic",
        "BUG: scheduling while atomic",
        r"BUG: scheduling while atomic: ",
        "scheduling while atomic",
    ),
    _line(
        "atomic",
        "BUG: sleeping function called from",
        r"BUG: sleeping function called from (?:invalid|illegal) context",
        "sleeping in atomic context",
        r"in_atomic|preempt_count|RCU nest|Preemption|\d+ locks? held|irq event",
    ),
    _line(
        "preempt",
        "BUG: using ",
        r"BUG: using \S+ in preemptible",
        "per-processor data while preemptible",
        r"caller is",
    ),
    _line(
        "spinlock",
        "BUG: spinlock ",
        r"BUG: spinlock (?:bad magic|lockup suspected|recursion|trylock|wrong|cpu|already)",
        "bad spinlock",
        r" lock: ",
    ),
    _line("spinlock", "BUG: rwlock ", r"BUG: rwlock ", "bad rwlock", r" lock: "),
    Rule(
        kind="page",
        severity=Severity.ERROR,
        starts=("BUG: Bad page ", "BUG: Bad rss", "BUG: non-zero "),
        header=Pattern(r"BUG: (Bad page (?:state|map)|Bad rss-counter state|non-zero \w+)"),
        title=lambda body: f"{body.match[1].replace('Bad', 'bad')}{body.where(pc=False)}",
        body=Pattern(r"page:|flags:|raw:|page dumped|addr:|file:|bad because|head:|pfn:|page_type"),
    ),
    Rule(
        kind="bug",
        severity=Severity.ERROR,
        starts=("BUG: ",),
        header=Pattern(r"BUG: (\S.*)"),
        title=_generic,
        printk_only=True,
    ),
)
