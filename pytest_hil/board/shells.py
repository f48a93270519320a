"""The shell at the end of a board's boot: over its console, over SSH, or none: a firmware."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pytest_hil.config.board import BoardTarget
from pytest_hil.config.driver import Nothing, Section, key
from pytest_hil.config.values import text
from pytest_hil.errors import nearest

if TYPE_CHECKING:
    from pytest_hil.console.session import Console
    from pytest_hil.shell.serial import SerialShell
    from pytest_hil.shell.ssh import SshShell

DRIVERS = ("none", "serial", "ssh")


@dataclass(frozen=True, slots=True)
class SerialOptions:
    """Keys of a ``shell`` table with ``driver = "serial"``."""

    where: str = key(text, default="/tmp", help="a directory of the board's that can be written")


def check(target: BoardTarget) -> None:
    """Raises ConfigError for what boards.toml says wrong about a board's shell."""
    if target.shell is not None:
        target.shell.options(options_of(target.shell))


def options_of(section: Section) -> type:
    """The keys that its driver knows. Raises ConfigError."""
    if section.driver not in DRIVERS:
        raise section.wrong(
            "driver",
            f"there is no shell driver {section.driver!r}",
            mend=nearest(section.driver, DRIVERS),
        )
    if section.driver == "ssh":
        from pytest_hil.shell.ssh import SshOptions

        return SshOptions
    return Nothing if section.driver == "none" else SerialOptions


def open_shell(
    target: BoardTarget, console: Console, on_lost: Callable[[], object]
) -> SerialShell | SshShell:
    """A board's shell, if it has one; connects when it is first used. Raises ConfigError."""
    section = target.shell
    if section is not None and section.driver == "ssh":
        from pytest_hil.shell.ssh import SshOptions, SshShell

        return SshShell(section.options(SshOptions), name=target.name)
    from pytest_hil.shell.serial import SerialShell

    options = SerialOptions() if section is None else section.options(SerialOptions)
    return SerialShell(console, name=target.name, where=options.where, on_lost=on_lost)
