"""What can be known of a board without touching it: that its drivers exist, and understand it."""

from __future__ import annotations

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
