"""Lines that are there only while the board has power."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.board.console.lasting import LastingTransport
from pytest_hil.board.console.serial import SerialConsole, SerialOptions
from pytest_hil.console.session import Console
from pytest_hil.errors import ChannelLost, InfrastructureError

if TYPE_CHECKING:
    from tests.board.console.conftest import Board

pytest.importorskip("serial")


def transport(path: Path, patience: float, *, late: bool = True) -> LastingTransport:
    driver = SerialConsole(SerialOptions(str(path)))
    return LastingTransport(driver.open, "dut", patience, watch=path, late=late)


def test_it_comes_with_the_power(tmp_path: Path, boards: Callable[[], Board]) -> None:
    path = tmp_path / "tty"
    line = transport(path, 20.0)
    assert not line.there
    with Console(line, name="dut") as console:
        line.powered()
        board = boards()
        board.raw()
        path.symlink_to(board.port)
        console.expect(r"\[pytest-hil: the console is there after \d+\.\d s\]\n", timeout=10)
        board.says(b"hello")
        console.expect("hello", timeout=10)
        assert line.there
        console.send("x")
        assert board.hears(1) == b"x"


def test_without_power_it_may_be_gone_for_long(tmp_path: Path, boards: Callable[[], Board]) -> None:
    path = tmp_path / "tty"
    board = boards()
    board.raw()
    path.symlink_to(board.port)
    line = transport(path, 0.2)
    with Console(line, name="dut") as console:
        line.unpowered()
        path.unlink()
        board.vanish()
        time.sleep(0.6)  # longer than its patience
        assert line.failure == ""
        line.powered()
        board = boards()
        board.raw()
        path.symlink_to(board.port)
        board.says(b"back")
        console.expect("back", timeout=10)


def test_power_and_no_line(tmp_path: Path) -> None:
    """Its time begins with the power, and it says what was looked for."""
    line = transport(tmp_path / "tty", 0.3)
    with Console(line, name="dut", grace=0.1) as console:
        time.sleep(0.5)
        assert not console.closed
        began = time.monotonic()
        line.powered()
        with pytest.raises(InfrastructureError, match=r"did not appear within 0.3 s; the last try"):
            console.expect("x", timeout=10)
        assert time.monotonic() - began >= 0.25
        assert "there is no serial port" in line.failure


def test_who_does_not_wait_is_told_at_once(tmp_path: Path) -> None:
    for late, patience in ((False, 20.0), (True, 0.0)):
        with pytest.raises(ChannelLost, match="there is no serial port"):
            transport(tmp_path / "tty", patience, late=late)


def test_closed_while_it_waits(tmp_path: Path) -> None:
    line = transport(tmp_path / "tty", 20.0)
    began = time.monotonic()
    line.close()
    line.close()
    assert time.monotonic() - began < 5
