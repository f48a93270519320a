"""A GPIO line of this host, through libgpiod's own Python package."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import key
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import HostLacks, InfrastructureError


def chip(value: object) -> str:
    """``"gpiochip0"``, or its path."""
    found = values.text(value)
    if not found or ("/" in found and not found.startswith("/")):
        raise BadValue(f"{shown(found)} is no GPIO chip", 'write "gpiochip0" or "/dev/gpiochip0"')
    return found if found.startswith("/") else f"/dev/{found}"


def line(value: object) -> int | str:
    """A line's number on its chip, or its name."""
    if type(value) is int:
        if not 0 <= value < 2**16:
            raise BadValue(f"{shown(value)} is no line of a GPIO chip", "allowed: 0 to 65535")
        return value
    if not isinstance(value, str):
        raise wrong_kind(value, "the number of a GPIO line, or its name")
    found = values.text(value)
    if not found:
        raise BadValue("there is no name in it", "`gpioinfo` shows the names of all lines")
    return found


@dataclass(frozen=True, slots=True)
class GpioOptions:
    """Keys of a ``power`` table with ``driver = "gpio"``."""

    chip: str = key(chip, help='"gpiochip0" or "/dev/gpiochip0"; `gpiodetect` shows them')
    line: int | str = key(line, help="the line's number on the chip, or its name")
    active_low: bool = key(
        values.boolean, default=False, help="true: power is on while the line is low"
    )


class GpioPower:
    """A line that this run holds as an output from when it is first switched.

    What becomes of the line when it is let go is its driver's affair: most leave it as it is.
    """

    Options: ClassVar[type] = GpioOptions

    def __init__(self, options: GpioOptions) -> None:
        self._options = options
        self._held: Any = None

    def on(self) -> None:
        """Raises PowerError, and InfrastructureError when the line may not be used."""
        self._switch(on=True)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch(on=False)

    def read(self) -> bool:
        """The line's level; one that was not switched yet stays as it is. Raises as :meth:`on`."""
        gpiod = _gpiod()
        active = gpiod.line.Value.ACTIVE
        if self._held is not None:
            try:
                return bool(self._held.get_value(self._options.line) == active)
            except OSError:
                self.close()  # it may be another adapter by now, plugged in anew
        try:
            with self._asked(gpiod, gpiod.line.Direction.AS_IS) as request:
                return bool(request.get_value(self._options.line) == active)
        except (OSError, ValueError) as error:
            raise self._failed(gpiod, error) from error

    def close(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.release()

    def _switch(self, *, on: bool) -> None:
        gpiod = _gpiod()
        value = gpiod.line.Value.ACTIVE if on else gpiod.line.Value.INACTIVE
        if self._held is not None:
            try:
                self._held.set_value(self._options.line, value)
                return
            except OSError:
                self.close()  # it may be another adapter by now, plugged in anew
        try:
            self._held = self._asked(gpiod, gpiod.line.Direction.OUTPUT, value)
        except (OSError, ValueError) as error:
            raise self._failed(gpiod, error) from error

    def _asked(self, gpiod: Any, direction: Any, value: Any = None) -> Any:
        settings = gpiod.LineSettings(direction=direction, active_low=self._options.active_low)
        if value is not None:
            settings.output_value = value
        return gpiod.request_lines(
            self._options.chip, consumer="pytest-hil", config={self._options.line: settings}
        )

    def _failed(self, gpiod: Any, error: OSError | ValueError) -> InfrastructureError:
        options = self._options
        what = f"line {options.line} of {options.chip}"
        number = error.errno if isinstance(error, OSError) else None
        if number in (errno.EACCES, errno.EPERM):
            return HostLacks(
                f"this user may not open {options.chip}",
                mend="sudo usermod -a -G gpio $USER, then log in again "
                '(where there is no such group: a udev rule for SUBSYSTEM=="gpio")',
            )
        if number == errno.EBUSY:
            return PowerError(f"{what} is in use", mend="`gpioinfo` shows by whom (the consumer)")
        if not gpiod.is_gpiochip_device(options.chip):
            there = Path(options.chip).exists()
            return InfrastructureError(
                f"{options.chip} is no GPIO chip" if there else f"there is no {options.chip}",
                mend="`gpiodetect` shows the GPIO chips of this host",
            )
        # By name a line is looked for by the library, which knows this error alone.
        if number in (None, errno.ENOENT):
            return InfrastructureError(
                f"there is no {what}", mend="`gpioinfo` shows the lines of each chip"
            )
        return PowerError(f"{what}: {error}")


def _gpiod() -> Any:
    try:
        import gpiod  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise HostLacks(
            "gpiod is not installed", mend="install it: pip install 'pytest-hil[gpio]'"
        ) from None
    if not hasattr(gpiod, "request_lines"):
        # Debian's python3-libgpiod was of libgpiod 1 for long.
        raise InfrastructureError(
            "gpiod is older than 2", mend="install another: pip install 'pytest-hil[gpio]'"
        )
    return gpiod
