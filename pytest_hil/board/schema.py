"""The schema of boards.toml with all drivers that are installed here, other packages' too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pytest_hil.board import drivers
from pytest_hil.board.boot.stage import StageOptions
from pytest_hil.board.console.open import LineOptions
from pytest_hil.board.power.switch import SwitchOptions
from pytest_hil.config import schema
from pytest_hil.config.driver import Nothing, Section
from pytest_hil.config.schema import Schema

SHARED: Mapping[str, type[Any]] = {
    "boot": StageOptions,
    "console": LineOptions,
    "power": SwitchOptions,
    "shell": Nothing,
}
"""The keys that all drivers of a kind have."""


def boards_schema() -> Schema:
    """What ``pytest-hil boards schema`` prints."""
    return schema.document({kind: _of_kind(kind, shared) for kind, shared in SHARED.items()})


def _of_kind(kind: str, shared: type) -> dict[str, Schema]:
    return {name: _of_driver(kind, name, shared) for name in drivers.names(kind)}


def _of_driver(kind: str, name: str, shared: type) -> Schema:
    try:
        return schema.options(name, shared, drivers.options(kind, Section("", "", name)))
    except Exception:
        if drivers.is_ours(kind, name):
            raise
        # Another package's, which cannot be imported here: nothing is known of its keys.
        return {
            "type": "object",
            "properties": {"driver": {"const": name}},
            "required": ["driver"],
        }
