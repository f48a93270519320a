"""Choosing by words: ``arm64 and (usb3 or not old)``, as pytest's ``-m`` does."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

_TOKEN = re.compile(r"\s*(\(|\)|[A-Za-z0-9_.:=-]+)")

Test = Callable[[Collection[str]], bool]


class BadExpression(ValueError):
    """It is no expression: says where, and what was expected."""


def choose(expression: str, words: Collection[str]) -> bool:
    """Whether something with these words is meant. Raises BadExpression."""
    return _Parser(expression).all()(words)


class _Parser:
    """or < and < not, as everywhere."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._token = ""
        self._next()

    def _next(self) -> None:
        rest = self._text[self._at :]
        match = _TOKEN.match(rest)
        if match is None and rest.strip():
            raise self._wrong("a word, and, or, not, ( or )")
        self._token = match[1] if match else ""
        self._at += match.end() if match else len(rest)

    def _wrong(self, wanted: str) -> BadExpression:
        return BadExpression(f"at column {self._at + 1}: expected {wanted}")

    def all(self) -> Test:
        found = self._or()
        if self._token:
            raise self._wrong("and, or, or the end")
        return found

    def _or(self) -> Test:
        parts = [self._and()]
        while self._token == "or":
            self._next()
            parts.append(self._and())
        return lambda words: any(part(words) for part in parts)

    def _and(self) -> Test:
        parts = [self._not()]
        while self._token == "and":
            self._next()
            parts.append(self._not())
        return lambda words: all(part(words) for part in parts)

    def _not(self) -> Test:
        token = self._token
        if token == "not":
            self._next()
            inner = self._not()
            return lambda words: not inner(words)
        if token == "(":
            self._next()
            found = self._or()
            if self._token != ")":
                raise self._wrong(")")
            self._next()
            return found
        if token in ("", ")", "and", "or"):
            raise self._wrong("a word")
        self._next()
        return lambda words: token in words
