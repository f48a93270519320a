"""A power port that a labgrid exporter offers: what it is, is known when the place is leased."""

from __future__ import annotations

from dataclasses import dataclass

from pytest_hil.config import values
from pytest_hil.config.driver import key
from pytest_hil.errors import InfrastructureError


@dataclass(frozen=True, slots=True)
class LabgridPowerOptions:
    """Keys of a ``power`` table with ``driver = "labgrid"``."""

    resource: str = key(
        values.text,
        default="",
        help="which power port of the place, where it has several: its name there",
    )


class LabgridPower:
    """Stands for the driver that it becomes: ``shelly``, ``http``, ``snmp`` or ``pdudaemon``."""

    Options = LabgridPowerOptions

    def __init__(self, options: LabgridPowerOptions) -> None:
        pass

    def on(self) -> None:
        """Raises InfrastructureError: this board was not leased from a coordinator."""
        raise _unknown()

    def off(self) -> None:
        """Raises as :meth:`on`."""
        raise _unknown()

    def read(self) -> bool | None:
        """Raises as :meth:`on`."""
        raise _unknown()

    def close(self) -> None:
        """Nothing is open."""


def _unknown() -> InfrastructureError:
    return InfrastructureError(
        "a power port of labgrid's is there when the board was leased from its coordinator",
        mend='name that in boards.toml: [lab] labgrid = "host:port"',
    )
