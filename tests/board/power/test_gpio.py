"""GPIO lines.

What the real gpiod package says of chips that are not there, or are none; and, because a chip
takes a kernel with one, a stand-in for the kernel's lines behind gpiod's own settings and values.
On a real chip: tests/integration/test_gpio.py.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import pytest

from pytest_hil.board.power.gpio import GpioOptions, GpioPower
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError

Chip = Callable[..., GpioPower]


class Kernel:
    """A chip of four lines, of which the third is named: who has them, and their levels."""

    def __init__(self, gpiod: Any) -> None:
        self.gpiod = gpiod
        self.levels = dict.fromkeys(range(4), False)
        self.outputs: set[int] = set()
        self.held: set[int] = set()
        self.history: list[tuple[int, bool]] = []
        self.fail = 0

    def request_lines(self, path: str, *, consumer: str, config: dict[Any, Any]) -> Request:
        assert consumer == "pytest-hil"
        if path != "/dev/gpiochip0":
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if self.fail:
            raise OSError(self.fail, os.strerror(self.fail))
        ((line, settings),) = config.items()
        if line == "relay":
            number = 2
        elif isinstance(line, str):
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        elif line > 3:
            raise ValueError("line offset of out range")
        else:
            number = line
        if number in self.held:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return Request(self, line, number, settings)


class Request:
    """As gpiod.LineRequest: a line that is held until it is released."""

    def __init__(self, kernel: Kernel, line: Any, number: int, settings: Any) -> None:
        self._kernel, self._line, self._number = kernel, line, number
        self._low = settings.active_low
        kernel.held.add(number)
        direction = kernel.gpiod.line.Direction
        assert settings.direction in (direction.AS_IS, direction.OUTPUT)
        if settings.direction == direction.OUTPUT:
            kernel.outputs.add(number)
            self.set_value(line, settings.output_value)

    def set_value(self, line: Any, value: Any) -> None:
        assert line == self._line
        if self._kernel.fail:
            raise OSError(self._kernel.fail, os.strerror(self._kernel.fail))
        assert self._number in self._kernel.outputs
        level = (value == self._kernel.gpiod.line.Value.ACTIVE) is not self._low
        self._kernel.levels[self._number] = level
        self._kernel.history.append((self._number, level))

    def get_value(self, line: Any) -> Any:
        assert line == self._line
        active = self._kernel.levels[self._number] is not self._low
        value = self._kernel.gpiod.line.Value
        return value.ACTIVE if active else value.INACTIVE

    def release(self) -> None:
        self._kernel.held.remove(self._number)

    def __enter__(self) -> Request:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        self.release()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    gpiod = pytest.importorskip("gpiod", minversion="2")
    one = Kernel(gpiod)
    monkeypatch.setattr(gpiod, "request_lines", one.request_lines)
    monkeypatch.setattr(gpiod, "is_gpiochip_device", lambda path: path == "/dev/gpiochip0")
    return one


@pytest.fixture
def power() -> Iterator[Chip]:
    made: list[GpioPower] = []

    def make(line: int | str = 1, *, chip: str = "/dev/gpiochip0", low: bool = False) -> GpioPower:
        made.append(GpioPower(GpioOptions(chip, line, low)))
        return made[-1]

    yield make
    for one in made:
        one.close()


# --- the real library ---


@pytest.mark.parametrize(
    ("chip", "said"),
    [
        ("/dev/gpiochip99", "there is no /dev/gpiochip99"),
        ("/dev/null", "/dev/null is no GPIO chip"),
    ],
)
def test_no_such_chip(power: Chip, chip: str, said: str) -> None:
    pytest.importorskip("gpiod", minversion="2")
    one = power(chip=chip)
    for act in (one.on, one.off, one.read):
        with pytest.raises(InfrastructureError, match=said) as caught:
            act()
        assert "gpiodetect" in caught.value.mend
        assert not isinstance(caught.value, PowerError), "it would be tried again"


def test_without_gpiod(power: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", None)
    with pytest.raises(InfrastructureError, match="gpiod is not installed") as caught:
        power().on()
    assert "pytest-hil[gpio]" in caught.value.mend


def test_gpiod_1(power: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gpiod", ModuleType("gpiod"))
    with pytest.raises(InfrastructureError, match="older than 2"):
        power().on()


# --- the stand-in ---


@pytest.mark.parametrize("low", [False, True])
def test_on_and_off(kernel: Kernel, power: Chip, low: bool) -> None:
    one = power(low=low)
    one.off()
    assert kernel.held == {1}
    assert one.read() is False
    one.on()
    assert one.read() is True
    assert kernel.history == [(1, low), (1, not low)], "never a level that nobody asked for"
    one.close()
    one.close()
    assert kernel.held == set()
    assert kernel.levels[1] is not low


def test_by_name(kernel: Kernel, power: Chip) -> None:
    power("relay").on()
    assert kernel.history == [(2, True)]


def test_reading_changes_nothing(kernel: Kernel, power: Chip) -> None:
    kernel.levels[1] = True
    assert power().read() is True
    assert power(low=True).read() is False
    assert (kernel.held, kernel.outputs, kernel.history) == (set(), set(), [])


def test_somebody_else_has_it(kernel: Kernel, power: Chip) -> None:
    kernel.held.add(1)
    with pytest.raises(PowerError, match="line 1 of /dev/gpiochip0 is in use"):
        power().on()
    kernel.held.clear()


@pytest.mark.parametrize("line", [4, "reset"])
def test_no_such_line(kernel: Kernel, power: Chip, line: int | str) -> None:
    with pytest.raises(InfrastructureError, match=f"there is no line {line} of"):
        power(line).on()


def test_not_permitted(kernel: Kernel, power: Chip) -> None:
    kernel.fail = errno.EACCES
    with pytest.raises(InfrastructureError, match="may not open /dev/gpiochip0") as caught:
        power().on()
    assert "usermod" in caught.value.mend


def test_it_fails_and_works_again(kernel: Kernel, power: Chip) -> None:
    one = power()
    one.off()
    kernel.fail = errno.EIO
    with pytest.raises(PowerError, match="Input/output error"):
        one.on()
    kernel.fail = 0
    Switch(one, SwitchOptions(retries=0)).on()
    assert kernel.levels[1] is True


# --- names ---


@pytest.mark.parametrize(
    ("chip", "line", "wanted"),
    [
        ("gpiochip0", 17, GpioOptions("/dev/gpiochip0", 17)),
        ("/dev/gpio/relays", "relay-1", GpioOptions("/dev/gpio/relays", "relay-1")),
    ],
)
def test_names(chip: str, line: int | str, wanted: GpioOptions) -> None:
    written = {"chip": chip, "line": line}
    section = Section("boards.toml", "[target.dut.power]", "gpio", written, Path())
    assert section.options(GpioOptions) == wanted


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"chip": "gpio/0", "line": 1}, "is no GPIO chip"),
        ({"chip": "gpiochip0", "line": -1}, "is no line"),
        ({"chip": "gpiochip0", "line": True}, "wanted the number"),
        ({"chip": "gpiochip0", "line": ""}, "no name in it"),
        ({"chip": "gpiochip0"}, "line: missing"),
    ],
)
def test_wrong_names(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "gpio", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(GpioOptions)
