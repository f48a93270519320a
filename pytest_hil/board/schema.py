"""The schema of boards.toml with all drivers that are installed here, other packages' too."""

from __future__ import annotations

from collections.abc import Mapping

from pytest_hil.board import drivers, shells
from pytest_hil.board.boot.stage import StageOptions
from pytest_hil.board.console.open import LineOptions
from pytest_hil.board.power.switch import SwitchOptions
from pytest_hil.config import schema
from pytest_hil.config.driver import Section
from pytest_hil.config.schema import Schema
from pytest_hil.shell.ssh import SshOptions

SHARED: Mapping[str, type] = {
    "boot": StageOptions,
    "console": LineOptions,
    "power": SwitchOptions,
}
"""The keys that all drivers of a kind have."""


def boards_schema() -> Schema:
    """What ``pytest-hil boards schema`` prints."""
    found = {kind: _of_kind(kind, shared) for kind, shared in SHARED.items()}
    found["shell"] = {
        "serial": schema.options("serial", shells.SerialOptions),
        "ssh": schema.options("ssh", SshOptions),
    }
    return schema.document(found)


def _of_kind(kind: str, shared: type) -> dict[str, Schema]:
    return {name: _of_driver(kind, name, shared) for name in drivers.names(kind)}


def _of_driver(kind: str, name: str, shared: type) -> Schema:
    try:
        driver = drivers.find(kind, Section("", "", name))
        return schema.options(name, shared, driver.Options)
    except Exception:
        if name in drivers.BUILTIN[kind]:
            raise
        # Another package's, which cannot be imported here: nothing is known of its keys.
        return {
            "type": "object",
            "properties": {"driver": {"const": name}},
            "required": ["driver"],
        }
