"""The first tests on a board."""

from __future__ import annotations

import pytest

from pytest_hil import Target

pytestmark = pytest.mark.hardware


def test_it_is_linux(hil: Target) -> None:
    assert hil.run("uname -s").stdout == "Linux\n"


def test_a_power_cut_empties_tmp(hil: Target) -> None:
    hil.run("echo blue > /tmp/colour")
    hil.power.cycle()
    assert not hil.run("test -e /tmp/colour", check=False).ok


@pytest.mark.hil(features=["u-boot"])
def test_the_bootloader_knows_what_to_boot(hil: Target) -> None:
    hil.boot("bootloader")
    assert hil.bootloader.env["bootcmd"] == "run distro_bootcmd"
    hil.boot()
    assert hil.run("uname -s").stdout == "Linux\n"
