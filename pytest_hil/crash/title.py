"""Titles: what of a report is the same each time. Frames, functions, numbers.

The frames of all architectures' traces, in the kernel's own formats: ``%pS`` and ``%pB`` are
``function+0xoffset/0xsize [module]`` (lib/vsprintf.c, kernel/kallsyms.c).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pytest_hil.crash.machinery import is_machinery
from pytest_hil.crash.pattern import Pattern

_SYMBOL = (
    r"(?P<function>[A-Za-z_.$][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+"
    r"(?: \[(?P<module>[\w-]+)(?: [0-9a-f]{8,40})?\])?"
)
_ADDRESS = r"(?:\[<[0-9a-f]+>\]\s+)"
# Where the processor was: x86, arm, arm64, riscv.
_PC = Pattern(
    r"(?:(?:RIP|EIP): (?:[0-9a-f]{4}:)?|(?:IP|EIP is at|PC is at|pc|epc)\s?:?\s)"
    rf"\s*{_ADDRESS}*{_SYMBOL}"
)
# A frame; one with "?" was only found on the stack. ia64 and powerpc have the address first.
_FRAME = Pattern(rf"\s*(?:\[c?[0-9a-f]{{8,16}}\] )?{_ADDRESS}*(?:\(\s?)?(?P<guess>\? )?{_SYMBOL}")
# arm's unwinder: callee, from caller, with addresses before Linux 5.18.
_FROM = Pattern(
    r"\s*(?:\[<[0-9a-f]+>\] )?\(?(?P<function>[\w.$]+)(?: \[(?P<module>[\w-]+)\])?\)? from "
    r"(?:\[<[0-9a-f]+>\] )?\(?[\w.$]+"
)
# What begins another trace of the same report: that of somebody else, or of another time.
_OTHER = Pattern(
    r"(?:Allocated|Freed|allocated|freed) (?:by|in)|Uninit was|The buggy address|"
    r"Last potentially|stack backtrace:$|the existing dependency chain|Memory state|"
    r"(?:write|read)(?:-write)? (?:\(\w+(?:, \w+)*\) )?to 0x|no locks held|"
    r"Second to last|Local variable|Exception stack"
)
_TRACE = Pattern(r"\s*(?:Call [Tt]race|[Bb]acktrace|stack backtrace)\b")
RULER = Pattern(r"\s*(?:[=*-]{8,}\s*$|-+\[ cut here \]-+|$)")

_SUFFIX = Pattern(
    r"(?:\.(?:isra|constprop|part|cold|llvm|lto_priv|clone|__uniq|cfi|cfi_jt|localalias)"
    r"(?:\.\d+)*)+$"
)


# What is looked at: a hostile target may fill its lines with anything. KSYM_NAME_LEN is 512.
_LONGEST_NAME = 512
_LONGEST_LINE = 1024


@dataclass(frozen=True, slots=True)
class Frame:
    function: str
    module: str = ""

    def __str__(self) -> str:
        return f"{self.function} [{self.module}]" if self.module else self.function


def function(name: str) -> str:
    """A function's name in the source: without what the compiler added to it."""
    return _SUFFIX.sub("", name[:_LONGEST_NAME])


def _frame(found: re.Match[str]) -> Frame:
    return Frame(function(found["function"]), found["module"] or "")


def symbol(text: str) -> Frame | None:
    """The first ``function+0x1/0x2 [module]`` in a text."""
    found = re.search(_SYMBOL, text[:_LONGEST_LINE])
    return _frame(found) if found else None


def frames(messages: Iterable[str]) -> Iterator[Frame]:
    """The frames of the first trace, the innermost first; guesses are left out."""
    seen = False
    for text in messages:
        if _OTHER.match(text) and seen:
            return
        found = _FROM.match(text) or _FRAME.match(text)
        if found and not found.groupdict().get("guess"):
            seen = True
            yield _frame(found)


def counters(messages: Iterable[str]) -> Iterator[Frame]:
    """Where processors were, as their registers say it."""
    for text in messages:
        found = _PC.match(text)
        if found:
            yield _frame(found)


def first_frame(messages: Iterable[str], named: str = "", *, pc: bool = True) -> Frame | None:
    """The first frame that means something; the first at all where none does."""
    texts = list(messages)
    tried: list[Frame] = []
    if named:
        found = symbol(named) or Frame(function(named))
        tried.append(found)
    if pc:
        tried += counters(texts)
    tried += frames(texts)
    # What a module calls kmalloc_something is its own.
    meaning = (each for each in tried if each.module or not is_machinery(each.function))
    return next(meaning, tried[0] if tried else None)


def where(messages: Iterable[str], named: str = "", *, pc: bool = True) -> str:
    found = first_frame(messages, named, pc=pc)
    return f" in {found}" if found else ""


def caller(messages: Iterable[str]) -> str:
    """Who went to a place that has no name: nothing can be unwound from there.

    The return address lies on top of the stack, so the first guess of the trace is no guess.
    """
    for text in messages:
        found = _FRAME.match(text)
        if found:
            return f" in {_frame(found)}"
    return ""


_NORMAL = (
    # function+0x1/0x2 → function
    (Pattern(r"([\w.$])\+0x[0-9a-f]+(?:/0x[0-9a-f]+)?\b"), r"\1"),
    (Pattern(r"(?<=\w)\.(?:isra|constprop|part|cold)(?:\.\d+)?\b"), ""),
    (Pattern(r"\b0x[0-9a-fA-F]+\b"), "ADDR"),
    (Pattern(r"\b(?=[0-9a-f]*\d)[0-9a-f]{8,16}\b"), "ADDR"),
    (Pattern(r"\(_{4}ptrval_{4}\)|\(ptrval\)"), "ADDR"),
    # What the compiler numbers or the user does: a processor, a thread, a line, a size.
    (Pattern(r"(?<![A-Za-z_\d.])-?\d+(?:\.\d+)*(?![A-Za-z_\d])"), "N"),
    (Pattern(r"\s+"), " "),
)
_LONGEST = 120


def normal(text: str) -> str:
    """A text without what differs each time: addresses, numbers, offsets."""
    text = text[:_LONGEST_LINE]
    for pattern, by in _NORMAL:
        text = pattern.sub(by, text)
    text = text.strip().rstrip(".:!,")
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def task(name: str) -> str:
    """A task's name without the numbers of the instance: ``kworker/u8:2`` → ``kworker``."""
    if name.startswith(("kworker/", "ksoftirqd/", "migration/", "swapper/", "cpuhp/", "watchdog/")):
        return name.partition("/")[0]
    return re.sub(r"\d+", "N", name) if re.search(r"\D\d{2,}$", name) else name
