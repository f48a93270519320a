"""The next test's machine is made ready while this one runs."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_hil.plugin.bench import made_bench
from pytest_hil.plugin.items import now
from pytest_hil.plugin.selection import wanted_of
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
        bench.prepare(wanted.target)
    return result


def _shares(item: pytest.Item, following: pytest.Item) -> bool:
    """Whether the next test will have the target that this one has."""
    width = scope(item.config)
    if width == "function" or wanted_of(item) != wanted_of(following):
        return False
    return width == "session" or item.path == following.path
