"""Which rules hold, and what is ignored: put together from ours, a project's, a test's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

from pytest_hil.crash.rule import Rule, pattern, user_rule
from pytest_hil.crash.rules import BUILTIN, HARMLESS
from pytest_hil.crash.scan import Scanner
from pytest_hil.errors import ConfigError, nearest

ENTRY_POINTS = "pytest_hil.crash_rules"


@dataclass(frozen=True)
class Rules:
    """All rules of a detector. Immutable: each method gives another set.

    The first rule whose header matches has a line, so added rules come before the others.
    ``ignored`` are patterns for titles, searched anywhere in them.
    """

    rules: tuple[Rule, ...] = BUILTIN
    ignored: tuple[re.Pattern[str], ...] = field(default=())

    def ignoring(self, *titles: str) -> Rules:
        """Without crashes whose title a regular expression is found in. Raises ConfigError."""
        more = tuple(pattern(each, "the crash to ignore") for each in titles)
        return replace(self, ignored=self.ignored + more)

    def adding(self, *rules: Rule) -> Rules:
        return replace(self, rules=rules + self.rules)

    def without(self, *kinds: str) -> Rules:
        """Without all rules of some kinds. Raises ConfigError for a kind that there is not."""
        known = {rule.kind for rule in self.rules}
        for kind in kinds:
            if kind not in known:
                raise ConfigError(
                    "crash rules", f"there is no kind {kind!r}", mend=nearest(kind, known)
                )
        return replace(self, rules=tuple(rule for rule in self.rules if rule.kind not in kinds))

    def reading(self, lines: Iterable[str]) -> Rules:
        """With rules from an ini file, one a line. Raises ConfigError.

        ``KIND: HEADER`` or ``KIND: HEADER ... END``, both regular expressions.
        """
        added = []
        for line in filter(None, map(str.strip, lines)):
            kind, colon, rest = line.partition(":")
            header, _, end = rest.strip().partition(" ... ")
            if not colon or not header:
                raise ConfigError(
                    "crash rules",
                    f"{line!r} is none",
                    mend="Write KIND: HEADER or KIND: HEADER ... END.",
                )
            added.append(user_rule(kind.strip(), header.strip(), end.strip() or None))
        return self.adding(*added)

    def installed(self) -> Rules:
        """With the rules of installed packages: entry points of ``pytest_hil.crash_rules``.

        Each is a function without parameters that returns rules, or such rules. Raises ConfigError.
        """
        from importlib.metadata import entry_points

        added: list[Rule] = []
        for entry in sorted(entry_points(group=ENTRY_POINTS)):
            try:
                made = entry.load()
                rules = list(made() if callable(made) else made)
                if not all(isinstance(rule, Rule) for rule in rules):
                    raise TypeError("it gives something that is no Rule")
            except Exception as error:
                raise ConfigError(
                    f"crash rules {entry.name!r} ({entry.value})",
                    f"they cannot be used: {type(error).__name__}: {error}",
                    mend="Mend or uninstall the package that brings them.",
                ) from error
            added += rules
        return self.adding(*added)

    def find(self, text: str) -> tuple[Rule, re.Match[str]] | None:
        """The rule that a message is the header of."""
        if not self.scanner.message(text):
            return None
        for rule in self._by_first.get(text[:1], self._anywhere):
            found = rule.header.match(text)
            if found:
                harmless = any(each.match(text) for each in HARMLESS)
                return None if harmless else (rule, found)
        return None

    @cached_property
    def _anywhere(self) -> tuple[Rule, ...]:
        """The rules whose headers may begin with anything."""
        return tuple(rule for rule in self.rules if not rule.starts or rule.needles)

    @cached_property
    def _by_first(self) -> dict[str, tuple[Rule, ...]]:
        """The rules to try for a message that begins with a letter."""
        firsts = {start[0] for rule in self.rules for start in rule.starts}
        anywhere = set(self._anywhere)
        return {
            first: tuple(
                rule
                for rule in self.rules
                if rule in anywhere or any(start[0] == first for start in rule.starts)
            )
            for first in firsts
        }

    def ignores(self, title: str) -> bool:
        return any(each.search(title) for each in self.ignored)

    @cached_property
    def scanner(self) -> Scanner:
        return Scanner(self.rules)


@cache
def known() -> Rules:
    """All that is known, and nothing else: made once."""
    return Rules()
