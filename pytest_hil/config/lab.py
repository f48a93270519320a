"""``[lab]``: who says which run has which board."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytest_hil.config import driver, values
from pytest_hil.config.model import LabConfig
from pytest_hil.config.tables import Check, Problems, plain, read_keys
from pytest_hil.config.values import wrong_kind


def read(raw: object, *, base: Path, problems: Problems) -> LabConfig:
    """The table as it is written, or without what is wrong in it."""
    if not isinstance(raw, Mapping):
        problems.add("lab", wrong_kind(raw, "a table [lab]").message)
        return LabConfig()
    found: dict[str, Any] = read_keys(raw, KEYS, base=base, prefix="[lab] ", problems=problems)
    return LabConfig(**found)


def _address(value: object) -> str:
    host, port = driver.address(value)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


KEYS: Mapping[str, Check] = {
    "directory": values.path,
    "labgrid": plain(_address),
    "quarantine_after": plain(driver.count(1, 1000)),
}
