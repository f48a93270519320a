"""Programs built with sanitizers: what compiler-rt and libsanitizer print."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule

_FRAME = Pattern(r"\s+#\d+ (?:0x[0-9a-f]+ in )?([\w:~<>.$]+)")
# Frames of the sanitizer itself, and what everybody calls.
_THEIRS = Pattern(
    r"__(?:asan|tsan|msan|ubsan|sanitizer|interceptor|lsan|hwasan)|_?_?(?:mem|str)(?:cpy|set"
    r"|move|cmp|len|cat|dup)"
    r"|(?:malloc|calloc|realloc|free|operator|abort|raise|printf|v?f?printf\w*|std)\b|<null>"
)
_SHORT = {"AddressSanitizer": "ASan", "ThreadSanitizer": "TSan", "LeakSanitizer": "LSan"} | {
    "MemorySanitizer": "MSan",
    "UndefinedBehaviorSanitizer": "UBSan",
    "HWAddressSanitizer": "HWASan",
}


def _where(body: Body) -> str:
    for text in body.messages:
        found = _FRAME.match(text)
        if found and not _THEIRS.match(found[1]):
            return f" in {found[1]}"
    return ""


def _title(body: Body) -> str:
    who, said = _SHORT[body.match[1]], body.match[2]
    # "heap-use-after-free on address 0x…", "data race (pid=7)", "SEGV on unknown address 0x…"
    said = re.split(r" on (?:unknown )?address| \(|: 0x| in | 0x", said)[0].rstrip(": ")
    said = {"detected memory leaks": "memory leak"}.get(said, said)
    return f"{who}: {names.normal(said)}{_where(body)}"


def _undefined(body: Body) -> str:
    said = re.sub(r"0x[0-9a-f]+|'[^']*'", "…", body.match[2])
    said = re.split(r": |, which| for type", said)[0]
    return f"UBSan: {names.normal(said)} at {body.match[1]}"


RULES = (
    Rule(
        kind="sanitizer",
        severity=Severity.USER,
        starts=(*(f"=={digit}" for digit in "123456789"), "WARNING: ThreadSanitizer"),
        header=Pattern(rf"(?:==\d+==)?(?:ERROR|WARNING): ({'|'.join(_SHORT)}): (\S.*)"),
        title=_title,
        end=Pattern(r"==\d+==ABORTING|SUMMARY: \w+Sanitizer: "),
        body=Pattern(
            r"\s+#\d+ |(?:READ|WRITE) of size|0x[0-9a-f]+ is |(?:previously )?(?:freed"
            r"|allocated) by|  |=>|==\d+|"
            r"Shadow|Direct leak|Indirect leak|Objects leaked|Hint|AddressSanitizer|Thread T"
            r"|SUMMARY|Uninit"
        ),
        firm=True,
        patience=40,
    ),
    Rule(
        kind="sanitizer",
        severity=Severity.USER,
        needles=(": runtime error: ",),
        header=Pattern(r"(?:[^\s:]*/)?([^\s:/]+\.\w+):\d+(?::\d+)?: runtime error: (\S.*)"),
        title=_undefined,
        body=Pattern(r"\s+#\d+ |SUMMARY: |0x[0-9a-f]+: note|\s+[0-9a-f]{2} |\s+\^"),
        lone=True,
        firm=True,
        patience=1,
    ),
)
