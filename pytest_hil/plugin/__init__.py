"""The pytest face: one feature a file, each with its own options, hooks and fixtures.

What pytest loads is light. Whatever a machine needs is imported when the first one is opened.
"""

from __future__ import annotations

# In the order of who needs whom: pytest rewrites the assertions of a plugin that it loads, and
# complains about one that was imported before.
pytest_plugins = [
    "pytest_hil.plugin.options",
    "pytest_hil.plugin.items",
    "pytest_hil.plugin.link",
    "pytest_hil.plugin.status",
    "pytest_hil.plugin.bench",
    "pytest_hil.plugin.chosen",
    "pytest_hil.plugin.marker",
    "pytest_hil.plugin.strict",
    "pytest_hil.plugin.selection",
    "pytest_hil.plugin.needs",
    "pytest_hil.plugin.hopes",
    "pytest_hil.plugin.targets",
    "pytest_hil.plugin.prepare",
    "pytest_hil.plugin.summary",
    "pytest_hil.plugin.live",
    "pytest_hil.plugin.artifacts",
    "pytest_hil.plugin.results",
    "pytest_hil.plugin.attachments",
    "pytest_hil.plugin.symbols",
    "pytest_hil.plugin.crashes",
    "pytest_hil.plugin.coverage",
    "pytest_hil.plugin.usb",
    "pytest_hil.plugin.keep",
    "pytest_hil.plugin.infrastructure",
    "pytest_hil.plugin.report",
    "pytest_hil.plugin.header",
    "pytest_hil.plugin.health",
    "pytest_hil.plugin.listing",
    "pytest_hil.plugin.xdist",
    "pytest_hil.plugin.schedule",
]
