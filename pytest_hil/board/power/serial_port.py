"""A serial port for the drivers that switch by one."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Any

from pytest_hil.board.console import ports
from pytest_hil.board.console.serial import not_opened
from pytest_hil.board.power.switch import PowerError
from pytest_hil.errors import ChannelLost, HostLacks, InfrastructureError


def open_port(wanted: str, *, baudrate: int, prepare: Callable[[Any], None]) -> Any:
    """pyserial's port, open and locked; ``prepare`` gets it before it is opened.

    ``wanted`` is as of a console's ``port``. Raises PowerError when it is not there, busy or
    broken, InfrastructureError when it may not be used.
    """
    try:
        import serial  # type: ignore[import-untyped,unused-ignore]
    except ImportError:
        raise HostLacks(
            "pyserial is not installed", mend="install it: pip install 'pytest-hil[serial]'"
        ) from None
    try:
        if "://" in wanted:
            line = serial.serial_for_url(wanted, do_not_open=True, baudrate=baudrate)
        else:
            line = serial.Serial(baudrate=baudrate, exclusive=True)
            line.port = ports.find(wanted)
        prepare(line)
        line.open()
    except ChannelLost as error:
        raise PowerError(error.message, mend=error.mend) from error
    except ValueError as error:
        raise InfrastructureError(f"{wanted} cannot be opened: {error}") from error
    except OSError as error:
        if "://" in wanted:
            raise PowerError(f"{wanted} cannot be opened: {error}") from error
        said = not_opened(line.port, error)
        # Who has it may be another run that switches another relay of the same board.
        if isinstance(said, ChannelLost) or error.errno in (errno.EBUSY, errno.EAGAIN):
            raise PowerError(said.message, mend=said.mend) from error
        raise said from error
    return line
