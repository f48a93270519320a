"""Targets of which nothing can be hoped any more: not tried anew by each of three hundred tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import (
    BootTimeout,
    ConfigError,
    HilError,
    ImageError,
    InfrastructureError,
    NoRoom,
    ToolMissing,
)

if TYPE_CHECKING:
    from pytest_hil.bench import AnyTarget

# What will be the same the next time.
_FOR_GOOD = (ConfigError, ImageError)
# What costs nothing to find out again. What was there at the start is missing only to a test that
# has changed PATH, say: that is no matter of the others.
_AT_ONCE = (ToolMissing,)
# What may be chance once, but not so often in a row.
_ATTEMPTS = 3


class Hopes:
    """Which descriptions of targets led to nothing, and why."""

    def __init__(self) -> None:
        self._gone: dict[AnyTarget, InfrastructureError] = {}
        self._failures: dict[AnyTarget, int] = {}

    @contextmanager
    def trying(self, target: AnyTarget, item: pytest.Item) -> Iterator[None]:
        """Open a target in here. Raises at once, in short, if there is no hope for it."""
        if target in self._gone:
            raise self._gone[target].with_traceback(None)
        try:
            yield
        except (ConfigError, InfrastructureError) as error:
            # Of a board that breaks, its health is kept, for other runs too.
            if not isinstance(error, _AT_ONCE) and not getattr(error, "board", ""):
                self._count(target, error, item)
            raise
        self._failures.pop(target, None)

    def _count(self, target: AnyTarget, error: HilError, item: pytest.Item) -> None:
        failures = self._failures[target] = self._failures.get(target, 0) + 1
        waited = isinstance(error, BootTimeout | NoRoom)
        if isinstance(error, _FOR_GOOD) or failures >= (2 if waited else _ATTEMPTS):
            first = error.message.splitlines()[0]
            self._gone[target] = InfrastructureError(
                f"the target {target.name} is not tried any more: as in {item.nodeid}: {first}"
            )


_HOPES = pytest.StashKey[Hopes]()


def hopes_of(config: pytest.Config) -> Hopes:
    return config.stash.setdefault(_HOPES, Hopes())
