"""Boards of a rig that are switched by each kind of power, through the drivers that users have."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.board.power.switch import PowerError
from pytest_hil.errors import ConfigError
from pytest_hil.rig.rig import Power, Rig
from pytest_hil.target import Target

DRIVERS: dict[Power, str] = {"tasmota": "tasmota", "snmp": "snmp", "hub": "usb-hub"}


@pytest.fixture(params=DRIVERS)
def rig(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    pytest.importorskip({"snmp": "pysnmp", "hub": "usb"}.get(request.param, "pytest"))
    with Rig(boards=2, power=request.param) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        table = tomllib.loads(made.boards_toml.read_text())["target"]["rig1"]
        assert table["power"]["driver"] == DRIVERS[request.param]
        yield made


def opened(rig: Rig, bench: Bench, name: str) -> Target:
    return bench.open(bench.describe(name))


@pytest.fixture
def bench(rig: Rig, tmp_path: Path) -> Iterator[Bench]:
    with Bench(Settings(root=tmp_path, boards=rig.boards_toml, lab=tmp_path / "lab")) as made:
        yield made


def test_a_board_is_really_switched(rig: Rig, bench: Bench) -> None:
    first, second = rig.boards
    target, other = opened(rig, bench, "rig1"), opened(rig, bench, "rig2")
    assert first.powered
    assert other.run("echo > /tmp/mark; echo here").stdout == "here\n"
    target.run("echo > /tmp/mark")
    target.power.off()
    assert not first.powered
    assert target.power.read() is False
    target.power.on()
    assert not target.run("test -e /tmp/mark", check=False).ok
    # The other one had its power all the time.
    assert second.record.count("off") == 0
    assert other.run("test -e /tmp/mark", check=False).ok


def test_a_relay_that_is_stuck(rig: Rig, bench: Bench) -> None:
    text = rig.boards_toml.read_text()
    rig.boards_toml.write_text(text.replace("off_seconds", "retries = 0, off_seconds"))
    target = opened(rig, bench, "rig1")
    rig.boards[0].fault("stuck-relay")
    with pytest.raises(PowerError, match=r"rig1.* was told [oO]ff and says (on|the opposite)"):
        target.power.off()
    assert rig.boards[0].powered
    rig.boards[0].fault("none")
    target.power.off()
    assert not rig.boards[0].powered


def test_they_are_taken_in_turn() -> None:
    pytest.importorskip("pysnmp")
    pytest.importorskip("usb")
    with Rig(boards=4, power=("hub", "snmp", "tasmota")) as rig:
        tables = tomllib.loads(rig.boards_toml.read_text())["target"].values()
        drivers = [table["power"]["driver"] for table in tables]
    assert drivers == ["usb-hub", "snmp", "tasmota", "usb-hub"]


def test_a_power_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"no 'smnp'[\s\S]*snmp"):
        Rig(power="smnp")  # type: ignore[arg-type]
