"""A rule: how one kind of report begins, goes on and ends, and what it is called."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.errors import ConfigError

# How many lines that do not look like a report end one: after its end was seen, and before.
_PATIENCE = 3
ENDLESS = 40


@dataclass(frozen=True, slots=True)
class Body:
    """What a title is made of: the header as its rule matched it, and all messages so far."""

    match: re.Match[str]
    messages: Sequence[str]

    @property
    def message(self) -> str:
        """The first line that says something: neither a ruler nor a mark to cut at."""
        return next((each for each in self.messages if not names.RULER.match(each)), "")

    def where(self, named: str = "", *, pc: bool = True) -> str:
        """`` in function [module]`` of the first frame that means something, or "".

        ``named`` is a function that the header names: it is that one if it means anything.
        ``pc``: the report's program counter comes before its trace.
        """
        return names.where(self.messages, named, pc=pc)


Title = Callable[[Body], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``header`` is matched at a message's beginning. ``starts`` are the literal beginnings of
    messages that it can match and ``needles`` literal parts, if they can begin with anything: the
    fast scan looks for these alone (needles are dearer, unless they begin with "]"). With neither,
    the scan tries ``header`` itself at each line.

    ``end`` is the last line. Without it a report is whole when it has a trace, or at once if it is
    ``lone``. ``body`` matches lines that belong to it, beside those that all reports have.
    ``firm``: it is believed without the kernel's prefix and without a body; else a line that
    merely reads like a header, with nothing behind it, is none. ``printk_only``: never believed
    without the prefix. ``patience``: how many strange lines end a report that is whole.

    ``refines`` are kinds of an open report that become this one by this header, ``continues``
    those that it is only one more line of.
    """

    kind: str
    severity: Severity
    header: Pattern | re.Pattern[str]
    title: Title
    starts: tuple[str, ...] = ()
    needles: tuple[str, ...] = ()
    end: Pattern | re.Pattern[str] | None = None
    body: Pattern | re.Pattern[str] | None = None
    lone: bool = False
    firm: bool = False
    printk_only: bool = False
    refines: frozenset[str] = frozenset()
    continues: frozenset[str] = frozenset()
    patience: int = field(default=_PATIENCE)


def fixed(text: str, *, pc: bool = True) -> Title:
    """A title of a fixed text and where it was."""
    return lambda body: text + body.where(pc=pc)


def plain(text: str) -> Title:
    """A title of a fixed text alone."""
    return lambda _body: text


def user_rule(
    kind: str, header: str, end: str | None = None, severity: Severity | str = Severity.ERROR
) -> Rule:
    """A rule of a user's own. Raises ConfigError.

    ``header`` is a regular expression for the beginning of a line, without the kernel's times and
    the like; its first group, if it has one, is the title, else the whole match is. ``end`` is one
    for the last line of the report; without it the report is that line and what traces follow it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9-]*", kind):
        raise ConfigError(
            f"crash rule {kind!r}",
            "not a kind",
            mend="A kind is of lower-case letters, digits and -.",
        )
    try:
        level = Severity(severity)
    except ValueError:
        known = ", ".join(Severity)
        raise ConfigError(
            f"crash rule {kind!r}", f"no severity {str(severity)!r}", mend=f"There are: {known}."
        ) from None

    def title(body: Body) -> str:
        said = body.match[1] if body.match.re.groups else body.match[0]
        return names.normal(said or body.match[0]) or kind

    first = pattern(header, f"crash rule {kind!r}, its header")
    if first.match(""):
        raise ConfigError(
            f"crash rule {kind!r}",
            f"the header {header!r} matches every line",
            mend="Name something that such a line has.",
        )
    last = None if end is None else pattern(end, f"crash rule {kind!r}, its end")
    return Rule(
        kind=kind,
        severity=level,
        header=first,
        title=title,
        end=last,
        lone=end is None,
        firm=True,
        patience=_PATIENCE if end is None else 1,
    )


def pattern(text: str, what: str) -> re.Pattern[str]:
    """A user's regular expression; ConfigError says what of it is wrong."""
    try:
        return re.compile(text)
    except re.error as error:
        raise ConfigError(
            what,
            f"{text!r} is no regular expression: {error}",
            mend="Python's re says how they are written; a \\ takes a \\ before brackets.",
        ) from None
