"""Oopses: the processor could not go on in the kernel. x86, arm, arm64, riscv.

x86: arch/x86/mm/fault.c, kernel/traps.c, kernel/dumpstack.c; arm: arch/arm/mm/fault.c,
kernel/traps.c; the others have theirs at the same places. ``[#1]`` counts them.
"""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, fixed

_END = Pattern(r"---\[ end trace")
_BODY = Pattern(
    r"\[#\d+\]|BUG: |kernel BUG|traps: |fault|Insufficient stack|Task stack|Overflow stack"
    r"|IRQ stack|FAR|kasan: "
)
_CUT = frozenset({"cut"})
_PATIENCE = 8


def _oops(
    starts: tuple[str, ...], header: str, text: str, continues: frozenset[str] = frozenset()
) -> Rule:
    return Rule(
        kind="oops",
        severity=Severity.ERROR,
        starts=starts,
        header=Pattern(header),
        title=fixed(text),
        end=_END,
        body=_BODY,
        refines=_CUT,
        continues=continues,
        patience=_PATIENCE,
    )


def _fault(body: Body) -> str:
    """A page fault: of a null pointer if the address is in the first page."""
    said, address = body.match[1], body.match[2] or ""
    null = "NULL" in said or (bool(address) and int(address, 16) < 4096)
    text = " ".join(body.messages[:8])
    if "user paging" in said or "user memory" in said or "access to user" in said:
        what = "access to user memory"
    elif "execute from non" in said or ("instruction fetch" in text and not null):
        return f"bad instruction fetch{body.where() or names.caller(body.messages)}"
    elif "write to read-only" in said or ("permissions violation" in text and "write" in text):
        what = "write to read-only memory"
    else:
        what = "NULL pointer dereference" if null else "page fault"
    return f"{what}{body.where()}"


def _died(body: Body) -> str:
    """``what: 0000 [#1]``, by whatever the architecture calls it."""
    said = re.sub(r"^(?:Internal error: )?(?:Oops(?: - |: ))?", "", body.match[1]).strip(" :-")
    said = re.sub(r", (?:probably for|maybe for) .*|: 0x[0-9a-f]+$", "", said).lower() or "oops"
    return f"{names.normal(said)}{body.where()}"


_ADDRESS = r".*?(?:\bat(?: virtual address)?|address:?) (?:0x)?([0-9a-f]+)"
_SAYS = (
    *("general protection", "invalid opcode", "divide error", "stack segment", "invalid TSS"),
    *("segment not present", "alignment check", "int3: ", "coprocessor", "bounds: ", "overflow: "),
    *("control protection", "double fault", "machine check", "simd ", "x87 ", "fpu exception"),
)
_DIED = (
    *("Oops: 0", "Oops: Oops: ", "Oops [#", "Oops - ", "Internal error: ", "Kernel BUG [#"),
    *("traps: Missing ENDBR", *_SAYS, *(f"Oops: {each}" for each in _SAYS)),
)
RULES = (
    Rule(
        kind="oops",
        severity=Severity.ERROR,
        starts=("BUG: unable to handle ", "BUG: kernel NULL pointer", "Unable to handle kernel "),
        header=Pattern(
            r"(?:BUG: (?=unable to handle |kernel NULL pointer)|(?=Unable to handle kernel ))"
            r"((?:[uU]nable to handle )?(?:kernel|page|user)\b.*?)"
            rf"(?:(?=,| at | for address){_ADDRESS}|$)"
        ),
        title=_fault,
        end=_END,
        body=_BODY,
        refines=_CUT,
        patience=_PATIENCE,
    ),
    _oops(
        (
            "BUG: stack guard page",
            "BUG: IRQ stack guard",
            "BUG: TASK stack guard",
            "BUG: NMI stack guard",
        ),
        r"BUG: (?:\w+ )?stack guard page was hit at",
        "kernel stack overflow",
    ),
    _oops(
        ("Insufficient stack space", "Kernel stack overflow", "Insufficient stack"),
        r"Insufficient stack space to handle exception|Kernel stack overflow",
        "kernel stack overflow",
    ),
    _oops(
        ("PANIC: double fault", "traps: PANIC: double fault"),
        r"(?:traps: )?PANIC: double fault",
        "double fault",
    ),
    _oops(("Bad mode in ", "Bad mode"), r"Bad mode in .*? (?:handler )?detected", "bad mode"),
    _oops(
        ("Unhandled fault: ",),
        r"Unhandled fault: (.*?) \(0x[0-9a-f]+\) at 0x[0-9a-f]+",
        "unhandled fault",
    ),
    _oops(("SError Interrupt on CPU",), r"SError Interrupt on CPU\d+, code", "SError"),
    Rule(
        kind="oops",
        severity=Severity.ERROR,
        starts=_DIED,
        header=Pattern(r"(?:Oops: )?([A-Za-z].*?)(?:: ?[0-9a-f]{1,16})? \[#\d+\]"),
        title=_died,
        end=_END,
        body=_BODY,
        refines=_CUT,
        continues=frozenset(
            {
                "oops",
                "bug",
                "kasan",
                "list",
                "refcount",
                "slab",
                "usercopy",
                "stack-protector",
                "page",
            }
        ),
        patience=_PATIENCE,
    ),
)
