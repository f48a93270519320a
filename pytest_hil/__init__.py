"""pytest-hil: a factory-fresh machine for every test.

The names that test authors need, for type hints and ``pytest.raises``. They are
looked up when first used (PEP 562): ``import pytest_hil`` loads nothing else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_hil.console.session import Console
    from pytest_hil.errors import (
        AttachFailed,
        BootTimeout,
        ChannelLost,
        CommandFailed,
        CommandTimeout,
        ConfigError,
        ConsoleClosed,
        Crashed,
        ExpectTimeout,
        HilError,
        InfrastructureError,
        MachineDied,
        NoCrash,
        NotThere,
        OutcomeUnknown,
        OutputTooLarge,
        TargetError,
        TransferError,
        Unsupported,
    )
    from pytest_hil.shell.base import Completed
    from pytest_hil.target import Attached, Power, Snapshot, Target, UsbDevice, UsbPort

__all__ = [
    "AttachFailed",
    "Attached",
    "BootTimeout",
    "ChannelLost",
    "CommandFailed",
    "CommandTimeout",
    "Completed",
    "ConfigError",
    "Console",
    "ConsoleClosed",
    "Crashed",
    "ExpectTimeout",
    "HilError",
    "InfrastructureError",
    "MachineDied",
    "NoCrash",
    "NotThere",
    "OutcomeUnknown",
    "OutputTooLarge",
    "Power",
    "Snapshot",
    "Target",
    "TargetError",
    "TransferError",
    "Unsupported",
    "UsbDevice",
    "UsbPort",
]

# Those that are not in errors.py.
_MODULES = {
    "Attached": "pytest_hil.target",
    "Completed": "pytest_hil.shell.base",
    "Console": "pytest_hil.console.session",
    "Power": "pytest_hil.target",
    "Snapshot": "pytest_hil.target",
    "Target": "pytest_hil.target",
    "UsbDevice": "pytest_hil.target",
    "UsbPort": "pytest_hil.target",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(_MODULES.get(name, "pytest_hil.errors")), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
