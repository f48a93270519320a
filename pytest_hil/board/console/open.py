"""From a ``console`` table of boards.toml to a console that is being read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from pytest_hil.board import drivers
from pytest_hil.board.console.lasting import LastingTransport
from pytest_hil.config.driver import Section, key, seconds
from pytest_hil.console.session import Console
from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost, HostLacks, InfrastructureError


class ConsoleDriver(Protocol):
    """A way to a console. Made as ``Driver(options)``; must not open anything yet.

    It may have an attribute ``watch``: the path (its last part may be a pattern) whose coming says
    that it can be opened again; None or absent when nothing in the file system says so.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None: ...

    def open(self) -> Transport:
        """Open it, anew at each call. Raises ChannelLost or another InfrastructureError.

        Nothing that comes in may be thrown away after this returns. Called by one thread at a time.
        """


@dataclass(frozen=True, slots=True)
class LineOptions:
    """Keys that every ``console`` table may have, whatever its driver."""

    patience: float = key(
        seconds,
        default=10.0,
        help="how long it may be gone (its adapter is powered by the board, say); 0: not at all",
    )


def open_console(section: Section, *, name: str) -> Console:
    """The console of the target ``name``, read from now on: open it before power is switched on.

    Raises ConfigError, ToolMissing, InfrastructureError, ChannelLost.
    """
    return console_on(open_line(section, name=name), name=name)


def console_on(line: LastingTransport, *, name: str) -> Console:
    """A console, which owns its line from now on."""
    try:
        return Console(line, name=name)
    except BaseException:
        line.close()
        raise


def open_line(section: Section, *, name: str, late: bool = False) -> LastingTransport:
    """What a console reads and writes. ``late``: it need not be there before there is power.

    Raises as :func:`open_console` does.
    """
    kind = drivers.find("console", section)
    options, own = section.both(LineOptions, kind.Options)
    driver = kind(own)
    try:
        return LastingTransport(
            driver.open, name, options.patience, watch=getattr(driver, "watch", None), late=late
        )
    except InfrastructureError as error:
        if type(error) not in (ChannelLost, HostLacks, InfrastructureError):
            raise
        raise type(error)(f"{section.where}: {error.message}", mend=error.mend) from error
    except OSError as error:
        raise ChannelLost(f"{section.where}: the console cannot be opened: {error}") from error
