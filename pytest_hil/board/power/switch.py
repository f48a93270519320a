"""What every power driver is, and what goes around each: patience, retries, verification."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeVar

from pytest_hil.config import values
from pytest_hil.config.driver import Section, count, key, seconds
from pytest_hil.errors import HilError, InfrastructureError

T = TypeVar("T")

# Seconds before the first retry; doubled each time.
_FIRST_PAUSE = 0.25


class PowerError(InfrastructureError):
    """A power switch did not do what it was told to."""


class PowerDriver(Protocol):
    """One outlet, relay or line. Made as ``Driver(options)``; must not talk to anything yet.

    All of it may take a while, raises PowerError (ToolMissing, ConfigError) and is called by one
    thread at a time.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None: ...

    def on(self) -> None:
        """Switch it on."""

    def off(self) -> None:
        """Switch it off."""

    def read(self) -> bool | None:
        """Whether it is on; None: the hardware cannot say."""

    def close(self) -> None:
        """Let go of it, as it is. May be called twice."""


@dataclass(frozen=True, slots=True)
class SwitchOptions:
    """Keys that every ``power`` table may have, whatever its driver."""

    off_seconds: float = key(seconds, default=2.0, help="how long it stays off at least")
    retries: int = key(count(0, 10), default=2, help="how often a command that failed is repeated")
    verify: bool = key(
        values.boolean, default=True, help="read the state back where the hardware can say it"
    )


class Switch:
    """A driver with patience: repeats what failed, and reads back what it did."""

    def __init__(
        self,
        driver: PowerDriver,
        options: SwitchOptions | None = None,
        *,
        name: str = "",
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._driver = driver
        self._options = options or SwitchOptions()
        self._name = name or type(driver).__name__
        self._sleep = sleep
        self._off_at: float | None = None

    def on(self) -> None:
        """Switch it on, ``off_seconds`` after it was switched off at the earliest.

        Raises PowerError when it does not, after all retries.
        """
        if self._off_at is not None:
            left = self._off_at + self._options.off_seconds - time.monotonic()
            if left > 0:
                self._sleep(left)
            self._off_at = None
        self._do("on", self._driver.on, wanted=True)

    def off(self) -> None:
        """Switch it off. Raises PowerError when it does not, after all retries."""
        self._do("off", self._driver.off, wanted=False)
        self._off_at = time.monotonic()

    def cycle(self) -> None:
        """Off, and on again."""
        self.off()
        self.on()

    def read(self) -> bool | None:
        """Whether it is on; None: the hardware cannot say."""
        return self._patiently(self._driver.read)

    def close(self) -> None:
        self._driver.close()

    def _do(self, word: str, act: Callable[[], None], *, wanted: bool) -> None:
        def once() -> None:
            act()
            if self._options.verify:
                state = self._driver.read()
                if state not in (wanted, None):
                    raise PowerError(
                        f"the power switch of {self._name} was told {word} and says "
                        f"{'on' if state else 'off'}",
                        mend="is the relay stuck, or is it another outlet?",
                    )

        self._patiently(once)

    def _patiently(self, act: Callable[[], T]) -> T:
        pause = _FIRST_PAUSE
        for left in range(self._options.retries, -1, -1):
            try:
                return act()
            except PowerError as error:
                if not left:
                    raise self._named(error) from error
            self._sleep(pause)
            pause *= 2
        raise AssertionError

    def _named(self, error: HilError) -> PowerError:
        if self._name in error.message:
            return PowerError(error.message, mend=error.mend)
        return PowerError(f"the power switch of {self._name}: {error.message}", mend=error.mend)


def open_switch(section: Section, *, name: str) -> Switch:
    """The switch that a ``power`` table describes. Raises ConfigError."""
    from pytest_hil.board import drivers

    kind = drivers.find("power", section)
    options, own = section.both(SwitchOptions, kind.Options)
    return Switch(kind(own), options, name=name)
