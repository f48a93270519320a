"""The next test's machine is made ready while this one runs."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_hil.plugin.bench import made_bench
from pytest_hil.plugin.items import now
from pytest_hil.plugin.selection import Wanted, wanted_of
from pytest_hil.plugin.targets import scope


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    bench = made_bench(item.config)
    following = now(item.config).next
    if bench is None or following is None:
        return result
    wanted = wanted_of(following)
    if wanted is None or next(following.iter_markers("skip"), None) is not None:
        return result
    if "hil" in following.fixturenames and not _shares(item, following):  # type: ignore[attr-defined]
        bench.prepare(wanted.target, _ahead(following, wanted))
    return result


def _ahead(following: pytest.Item, wanted: Wanted) -> int:
    """How many machines like the next one will be wanted soon: one or two."""
    if hasattr(following.config, "workerinput"):
        return 2  # a worker knows its next test only, and mostly has more
    items = following.session.items
    after = items.index(following) + 1
    return 2 if after < len(items) and wanted_of(items[after]) == wanted else 1


def _shares(item: pytest.Item, following: pytest.Item) -> bool:
    """Whether the next test will have the target that this one has."""
    width = scope(item.config)
    if width == "function" or wanted_of(item) != wanted_of(following):
        return False
    return width == "session" or item.path == following.path
