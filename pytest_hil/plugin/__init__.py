"""The pytest face: one feature a file, each with its own options, hooks and fixtures.

What pytest loads is light. Whatever a machine needs is imported when the first one is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# In the order of who needs whom: pytest rewrites the assertions of a plugin that it loads, and
# complains about one that was imported before.
_FEATURES = (
    "options",
    "items",
    "link",
    "status",
    "bench",
    "chosen",
    "marker",
    "strict",
    "selection",
    "needs",
    "hopes",
    "targets",
    "prepare",
    "summary",
    "live",
    "artifacts",
    "results",
    "attachments",
    "symbols",
    "pstore",
    "crashes",
    "coverage",
    "usb",
    "keep",
    "infrastructure",
    "report",
    "header",
    "health",
    "listing",
    "xdist",
    "schedule",
)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    # Not by ``pytest_plugins``: pytest 9.2 looks for each of its names among the entry points of
    # all that is installed, 2 ms each with 60 distributions.
    for feature in _FEATURES:
        pluginmanager.import_plugin(f"{__name__}.{feature}")
