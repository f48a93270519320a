"""What can be known of a board without touching it: that its drivers exist, and understand it."""

from __future__ import annotations

import dataclasses
import os

from pytest_hil.board import drivers
from pytest_hil.board.boot.stage import StageOptions, open_stages
from pytest_hil.board.console.open import LineOptions
from pytest_hil.board.power.switch import SwitchOptions
from pytest_hil.config.board import BoardTarget
from pytest_hil.config.driver import Nothing
from pytest_hil.config.tables import Problems
from pytest_hil.errors import ConfigError


def check(target: BoardTarget) -> None:
    """Raises ConfigError with all that boards.toml says wrong about it."""
    problems = Problems(target.console.source)
    sections = [
        ("console", LineOptions, target.console),
        ("power", SwitchOptions, target.power),
        ("power", SwitchOptions, target.reset),
        *(("boot", StageOptions, stage) for stage in target.boot),
        ("shell", Nothing, target.shell),
    ]
    for kind, shared, section in sections:
        if section is None:
            continue
        try:
            section.read(shared, drivers.options(kind, section), problems)
        except ConfigError as error:
            problems.include(error)
    if not problems:
        # What one stage says about another.
        open_stages(target.boot)
    problems.raise_if_any()


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
