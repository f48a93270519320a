"""A console that a labgrid exporter offers: where it is, is known when the place is leased."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_hil.config import values
from pytest_hil.config.driver import key
from pytest_hil.console.transport import Transport
from pytest_hil.errors import InfrastructureError


@dataclass(frozen=True, slots=True)
class LabgridOptions:
    """Keys of a ``console`` table with ``driver = "labgrid"``."""

    resource: str = key(
        values.text,
        default="",
        help="which serial port of the place, where it has several: its name there",
    )


class LabgridConsole:
    """Stands for the driver that it becomes: ``tcp`` or ``serial`` with RFC 2217."""

    Options = LabgridOptions
    watch: Path | None = None

    def __init__(self, options: LabgridOptions) -> None:
        pass

    def open(self) -> Transport:
        """Raises InfrastructureError: this board was not leased from a coordinator."""
        raise InfrastructureError(
            "a console of labgrid's is there when the board was leased from its coordinator",
            mend='name that in boards.toml: [lab] labgrid = "host:port"',
        )
