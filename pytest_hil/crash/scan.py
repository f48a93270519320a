r"""The fast look: where in a block of whole lines might a report begin?

A header stands at a message's beginning, and a message at a line's or after a printk time, whose
end is a ``]``. So one pattern is tried at these places only: ``re`` finds them with memchr(),
and four looks at one byte each tell most of them apart from a header. That is ten times as fast
as looking for a hundred words everywhere. What it finds is looked at again, line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pytest_hil.crash.line import COLOURS, LEVEL, SYSLOG
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Rule

# What a serial line, a terminal and syslog put before a message without the kernel's time.
# Not possessive: in Python 3.11.2, which is Debian 12's, such groups do not match what they should.
_BEFORE = rf"(?:[\x00\r]|{COLOURS})*(?:{LEVEL})?(?:{SYSLOG})?(?:{LEVEL})?(?:{COLOURS})*"
_AFTER_BRACKET = rf" ?(?:(?=[\x1b<])(?:{COLOURS}|{LEVEL})*)?"
# Bytes of a beginning that are looked at before the words are compared, if all are as long.
_LOOKS = 4


def _any_of(words: Sequence[str]) -> str:
    """A pattern for any of some words, that does not try each of them: a tree of their letters."""
    if "" in words:
        return ""
    firsts = sorted({word[0] for word in words})
    branches = []
    for first in firsts:
        rest = [word[1:] for word in words if word[0] == first]
        branches.append(re.escape(first) + _any_of(rest))
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _looks(words: Sequence[str]) -> str:
    """A lookahead for the first bytes of any of some words."""
    looks = range(min(_LOOKS, *map(len, words)))
    sets = ("".join(sorted({re.escape(word[at]) for word in words})) for at in looks)
    return f"(?={''.join(f'[{each}]' for each in sets)})"


def _quick(starts: Sequence[str]) -> str:
    """A pattern for any of some beginnings."""
    return f"(?:{_looks(starts)}{_any_of(starts)})" if starts else r"(?!)"


class Scanner:
    """What a set of rules looks for; ``line`` says whether a message may begin a report."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        rules = tuple(rules)
        starts = sorted({start for rule in rules for start in rule.starts})
        bare = sorted({start for rule in rules for start in rule.starts if not rule.printk_only})
        needles = sorted({needle for rule in rules for needle in rule.needles})
        self._needles = [each.encode() for each in needles if each[0] != "]"]
        brackets = [each[1:] for each in needles if each[0] == "]"]
        inner = f"{_any_of(brackets)}|" if brackets else ""
        quick = _quick(starts)
        self._patterns = [
            re.compile(
                rf"\n(?:{_quick(bare)}|(?=[\x00\r\x1b<JFMASOND12]){_BEFORE}{quick})".encode()
            ),
            re.compile(rf"\](?:{inner}{_AFTER_BRACKET}{quick})".encode()),
        ]
        # Rules without a literal are tried themselves.
        slow = [rule.header for rule in rules if not rule.starts and not rule.needles]
        self._patterns += [each for header in slow for each in _bytes(header)]
        if slow:
            # Bytes are not letters, and within a message there may be colours.
            self._patterns.append(re.compile(rb"[\x1b\x80-\xff][^\n]*"))
        self._message = Pattern(quick)
        self._words = needles
        self._slow = slow

    def message(self, text: str) -> bool:
        """Whether a header may match a message: true for every one that matches."""
        return (
            self._message.match(text) is not None
            or any(word in text for word in self._words)
            or any(header.match(text) for header in self._slow)
        )

    def lines(self, block: bytes) -> Iterator[int]:
        """Where in a block lines begin that may have a header, in order.

        ``block`` begins with the newline before its first line and ends with a newline.
        """
        found: set[int] = set()
        for pattern in self._patterns:
            for each in pattern.finditer(block):
                found.add(block.rfind(b"\n", 0, each.start() + 1) + 1)
        for needle in self._needles:
            at = block.find(needle)
            while at >= 0:
                found.add(block.rfind(b"\n", 0, at) + 1)
                at = block.find(needle, at + 1)
        return iter(sorted(found))


def _bytes(header: Pattern | re.Pattern[str]) -> list[re.Pattern[bytes]]:
    """A user's pattern for bytes where a message may begin; one for every line if it has none."""
    try:
        # Not what looks at places or counts what is before it: bytes go on with CR LF.
        if re.search(r"[$^]|\\[AZbB1-9]|\(\?[a-zA-Z<#(]", header.pattern):
            raise re.error("a place")
        flags = header.flags & ~re.UNICODE
        before = (rf"\n{_BEFORE}", rf"\]{_AFTER_BRACKET}")
        return [re.compile(f"{each}(?:{header.pattern})".encode(), flags) for each in before]
    except re.error:
        return [re.compile(rb"\n(?=.)")]
