"""Firmware without Linux: Cortex-M fault dumps, Zephyr, FreeRTOS, ESP-IDF, Mbed OS, NuttX, RIOT."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, Title, plain

# Zephyr's logger in its forms, without its time: "<err> os: ", "E: ", nothing.
_LOG = r"(?:<err> \w+: |E: )?"
_REGISTERS = (
    r".*\b(?:r\d+|R\d+|a\d+|s\d+|t\d+|lr|pc|LR|PC|xPSR|xpsr|PSR|SP|CFSR|HFSR|BFAR|MMFAR|DFSR"
    r"|AFSR|EXC\w*|"
    r"mepc|mcause|mtval|MEPC|MCAUSE|MTVAL|PS|SAR|LBEG|LEND|LCOUNT|A\d+|RA|GP|TP)(?:/\w+)?\s*[\[:=]"
)


def _rule(
    kind: str,
    header: str,
    title: Title,
    *starts: str,
    needles: tuple[str, ...] = (),
    end: str | None = None,
    body: str = "",
    continues: frozenset[str] = frozenset(),
) -> Rule:
    return Rule(
        kind=kind,
        severity=Severity.FATAL,
        starts=starts,
        needles=needles,
        header=Pattern(header),
        title=title,
        end=Pattern(end) if end else None,
        body=Pattern(f"{_REGISTERS}|{body}" if body else _REGISTERS),
        lone=end is None,
        firm=True,
        continues=continues,
        patience=6,
    )


def _zephyr(body: Body) -> str:
    """By the fault of the processor if there is one, else by the error's own words."""
    said = ""
    for text in body.messages:
        fault = re.search(r"\*{5} ([A-Z][A-Z ]+?) \*{5}", text)
        if fault:
            return f"Zephyr: {fault[1].capitalize()}"
        error = re.search(r"ZEPHYR FATAL ERROR \d+: (.*?)(?: on CPU \d+)?$", text)
        said = said or (error[1] if error else "")
    return f"Zephyr: {names.normal(said) or 'fatal error'}"


def _assert(body: Body) -> str:
    found = body.match.groupdict()
    where = found.get("function") or found.get("file") or ""
    what = found.get("what") or ""
    where = where.rpartition("/")[2]
    return (
        "assertion failed"
        + (f" in {where}" if where else "")
        + (f": {names.normal(what)}" if what else "")
    )


def _hard(body: Body) -> str:
    # The registers of the System Control Block say more: ARMv7-M B3.2.15, CFSR.
    for text in body.messages:
        found = re.search(r"\bCFSR\s*[:=]\s*(?:0x)?([0-9a-fA-F]{8})", text)
        if found:
            return f"HardFault: {_cause(int(found[1], 16))}"
    return "HardFault"


_CAUSES = (
    (0x0000_00FF, "memory management fault"),
    (0x0000_FF00, "bus fault"),
    (0x0200_0000, "division by zero"),
    (0x0100_0000, "unaligned access"),
    (0x0002_0000, "invalid state"),
    (0x0001_0000, "undefined instruction"),
    (0xFFFF_0000, "usage fault"),
)


def _cause(cfsr: int) -> str:
    return next((name for mask, name in _CAUSES if cfsr & mask), "escalated")


def _assert_of(body: Body) -> str:
    found = body.match.groupdict()
    where = found["file"] or found["where"] or ""
    if not where:
        named = re.search(r"([\w.-]+\.\w+):\d+", body.match[0])
        where = named[1] if named else ""
    where = where.rpartition("/")[2]
    what = f": {found['what']}" if found["what"] else ""
    return "assertion failed" + (f" in {where}" if where else "") + what


def _mbed(body: Body) -> str:
    for text in body.messages:
        found = re.match(r"(?:FaultType: (\w+)|Error Message: (.*))", text)
        if found:
            return f"Mbed OS: {found[1] or names.normal(found[2])}"
    return "Mbed OS: error"


RULES = (
    _rule(
        "zephyr",
        rf"{_LOG}(?:\*{{5}} ([A-Z][A-Z ]+(?:FAULT|ERROR|EXCEPTION|ABORT)[A-Z ]*) \*{{5}}"
        rf"|>>> (ZEPHYR FATAL ERROR))",
        _zephyr,
        *("***** ", ">>> ZEPHYR", "E: ***** ", "E: >>> Z", "<err> os: *****", "<err> os: >>>"),
        end=rf"{_LOG}Halting system",
        body=rf"{_LOG}(?:\s|Current thread|>>>|Faulting|\*{{5}}|Backtrace|Executable|Stacking)",
        continues=frozenset({"zephyr", "assert"}),
    ),
    _rule(
        "guru-meditation",
        r"Guru Meditation Error: Core\s+\d+ panic'ed \((.+?)\)",
        lambda body: f"Guru Meditation: {body.match[1]}",
        "Guru Meditation Error: ",
        end=r"Backtrace:|ELF file SHA256|Rebooting\.\.\.",
        body=r"Core\s+\d+ register dump|Debug exception|Memory dump|Stack memory|[0-9a-f]{8}: "
        r"|ELF file|Rebooting|\s*$",
    ),
    _rule(
        "abort",
        r"abort\(\) was called at PC 0x[0-9a-f]+(?: on core \d+)?",
        plain("abort() was called"),
        "abort() was called",
        end=r"Backtrace:|ELF file SHA256|Rebooting\.\.\.",
        body=r"ELF file|Rebooting|\s*$",
        continues=frozenset({"assert"}),
    ),
    _rule(
        "watchdog",
        r"(?:E \(\d+\) task_wdt: )?Task watchdog got triggered",
        plain("task watchdog"),
        *("Task watchdog got triggered", *(f"E ({digit}" for digit in "123456789")),
        body=r"E \(\d+\) task_wdt|Backtrace",
    ),
    _rule(
        "stack-overflow",
        r"\*\*\*ERROR\*\*\* A stack overflow in task (\S+) has been detected",
        lambda body: f"stack overflow of task {names.task(body.match[1])}",
        "***ERROR*** A stack overflow",
        body=r"Backtrace|ELF file|Rebooting|\s*$",
    ),
    _rule(
        "assert",
        # ESP-IDF: assert failed: FUNCTION FILE:LINE (EXPRESSION)
        r"assert failed: (?P<function>[\w:]+) \S+?:\d+(?: \((?P<what>.*)\))?",
        _assert,
        "assert failed: ",
        end=r"Backtrace:|ELF file SHA256|Rebooting\.\.\.",
        body=r"ELF file|Rebooting|\s*$",
    ),
    _rule(
        "assert",
        # newlib's and picolibc's, Zephyr's, FreeRTOS demos' and NuttX's.
        r"(?:assertion \"(?P<what>[^\"]*)\" failed: file \"(?P<file>[^\"]+)\""
        r"|ASSERTION FAIL \[.*?\] @ (?:WEST_TOPDIR/)?(?P<where>[^\s:]+)"
        r"|(?:configASSERT|vAssertCalled|ASSERT!?|Assertion failed)[^\n]{0,20}?(?:in|at"
        r"|file:?|:)\s*\S+?:\d+)",
        _assert_of,
        *(
            'assertion "',
            "ASSERTION FAIL [",
            "configASSERT",
            "vAssertCalled",
            "ASSERT",
            "Assertion failed",
        ),
    ),
    _rule(
        "hardfault",
        r"(?:\W{0,6}(?:\w+: )?(?:PANIC!!! )?(?:In )?(?:Hard ?[fF]ault"
        r"|HARD ?FAULT)\b(?! (?:test|handler (?:in|reg))).*"
        r"|Context before hardfault|\S+: PANIC!!! Hard [fF]ault)",
        _hard,
        *(
            "HardFault",
            "Hard Fault",
            "Hard fault",
            "HARD FAULT",
            "HARDFAULT",
            "[Hard",
            "[HardF",
            "!!! H",
        ),
        *("*** H", "**** H", "In Hard", "Context before hard", "up_hardfault: ", "arm_hardfault: "),
        body=r"\s+|Firmware|Fault|Stack|Active|Vector|Exception|={4,}|\*{3,}|[-+]{2}",
    ),
    _rule(
        "mbed",
        r"\+\+ MbedOS (?:Fault Handler|Error Info) \+\+",
        _mbed,
        "++ MbedOS ",
        end=r"-- MbedOS (?:Fault Handler|Error Info) --",
        body=r"FaultType|Context|Mode|Priv|Stack|Error |Location|File|Thread|Entry|For more"
        r"|\S+\s*:",
        continues=frozenset({"mbed"}),
    ),
    _rule(
        "riot",
        r"\*\*\* RIOT kernel panic:",
        lambda body: (
            "RIOT: "
            + next((names.normal(t) for t in body.messages[1:] if t.strip()), "kernel panic")
        ),
        "*** RIOT kernel panic",
        end=r"\*\*\* (?:halted|rebooting)",
        body=r"\S.*",
        continues=frozenset({"hardfault"}),
    ),
)
