"""What can be known of a board without touching it: that its drivers exist, and understand it."""

from __future__ import annotations

import dataclasses
import os

from pytest_hil.board import drivers, shells
from pytest_hil.board.boot.stage import open_stages
from pytest_hil.board.console.open import LineOptions
from pytest_hil.board.power.switch import SwitchOptions
from pytest_hil.config.board import BoardTarget
from pytest_hil.config.driver import Nothing


def check(target: BoardTarget) -> None:
    """Raises ConfigError for what boards.toml says wrong about it."""
    for kind, shared, section in (
        ("console", LineOptions, target.console),
        ("power", SwitchOptions, target.power),
        ("power", SwitchOptions, target.reset),
    ):
        if section is not None:
            driver = drivers.find(kind, section)
            section.both(shared or Nothing, driver.Options)
    open_stages(target.boot)
    shells.check(target)


def check_secrets(target: BoardTarget) -> None:
    """Raises ConfigError for a password that is to be in the environment and is not."""
    sections = (("console", target.console), ("power", target.power), ("power", target.reset))
    for kind, section in (*sections, *(("boot", each) for each in target.boot)):
        if section is None:
            continue
        for field in dataclasses.fields(drivers.find(kind, section).Options):
            value = section.written.get(field.name)
            if "Secret" not in str(field.type) or not isinstance(value, dict):
                continue
            name = value.get("env")
            if isinstance(name, str) and name not in os.environ:
                raise section.wrong(field.name, f"${name} is not set", mend=f"export {name}=…")
