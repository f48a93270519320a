"""Tests for boards; on machines they are skipped."""

from __future__ import annotations

import pytest

from pytest_hil import Target


@pytest.mark.hardware
def test_it_survives_a_power_cut(hil: Target) -> None:
    hil.run("echo written > /tmp/state")
    hil.power.cycle()
    assert hil.power.read()
    assert hil.run("uname -s").stdout == "Linux\n"


@pytest.mark.hardware
@pytest.mark.hil(features=["u-boot"])
def test_the_bootloader(hil: Target) -> None:
    hil.boot("bootloader")
    assert "U-Boot" in hil.bootloader.run("version").stdout
    hil.bootloader.env["bootargs_extra"] = "quiet"
    assert hil.bootloader.env["bootargs_extra"] == "quiet"
    hil.boot()
    assert hil.run("uname -s").stdout == "Linux\n"
