"""Regular expressions that are compiled when they are first needed.

A run without a crash needs few of two hundred, and to compile them all takes 30 ms in each process
that runs a test.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cached_property
from typing import Any


class Pattern:
    """Of what ``re.Pattern`` has, that which rules and titles use."""

    def __init__(self, pattern: str, flags: int = 0) -> None:
        self.pattern = pattern
        self.flags = flags

    def __repr__(self) -> str:
        return f"Pattern({self.pattern!r})"

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern, self.flags)

    # Once asked for, they are as quick as those of re: they are found in the instance itself.

    @cached_property
    def match(self) -> Callable[[str], re.Match[str] | None]:
        return self._compiled.match

    @cached_property
    def fullmatch(self) -> Callable[[str], re.Match[str] | None]:
        return self._compiled.fullmatch

    @cached_property
    def search(self) -> Callable[[str], re.Match[str] | None]:
        return self._compiled.search

    @cached_property
    def sub(self) -> Callable[[str, str], str]:
        return self._compiled.sub

    @cached_property
    def split(self) -> Callable[[str], list[str | Any]]:
        return self._compiled.split
