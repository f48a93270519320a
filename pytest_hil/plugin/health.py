"""The header's line for each board that is ill: before the first test waits for it in vain.

What falls ill while the tests run is said at the end: by those who opened it.
"""

from __future__ import annotations

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import chosen
from pytest_hil.plugin.bench import bench_of


def pytest_report_header(config: pytest.Config) -> list[str]:
    from pytest_hil.config import BoardTarget, PoolTarget

    if not chosen.names(config) or not chosen.usable(config):
        return []
    bench = bench_of(config)
    names: dict[str, None] = {}
    for name in chosen.names(config):
        target = bench.describe(name)
        if isinstance(target, PoolTarget):
            names.update(dict.fromkeys(one.name for one in target.boards))
        elif isinstance(target, BoardTarget):
            names[target.name] = None
    if not names:
        return []
    from pytest_hil.lab.health_book import sentence

    try:
        known = bench.health.look(tuple(names))
    except HilError:
        return []  # whoever needs a board will be told
    return [
        f"hil: {sentence(name, one)}; pytest-hil lab health {name}"
        for name, one in known.items()
        if one.state == "quarantined"
    ]
