"""What a check takes, as a JSON schema beside it: for editors (:mod:`pytest_hil.config.schema`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

C = TypeVar("C", bound=Callable[..., Any])

_ATTRIBUTE = "hil_schema"


def described(**schema: Any) -> Callable[[C], C]:
    """A decorator for a check. What it says must be true of everything that the check takes; the
    check may refuse more than it says.
    """

    def mark(check: C) -> C:
        setattr(check, _ATTRIBUTE, schema)
        return check

    return mark


def description(check: Callable[..., Any]) -> Mapping[str, Any] | None:
    """What is said of a check; None when nothing is."""
    found: Mapping[str, Any] | None = getattr(check, _ATTRIBUTE, None)
    return found


def array_of(**items: Any) -> Callable[[C], C]:
    """The same for a check of arrays, by their items."""
    return described(type="array", items=items)
