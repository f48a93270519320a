"""A boot counter, tested on a machine of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil import Target

PROGRAM = Path(__file__).with_name("bootcount")


@pytest.fixture
def machine(hil: Target) -> Target:
    """A machine with the boot counter on it."""
    hil.put(PROGRAM, "/sbin/bootcount", mode=0o755)
    return hil


def test_first_boot(machine: Target) -> None:
    machine.run("bootcount")
    machine.console.expect("boot 1 of 3")


def test_third_bad_boot_rolls_back(machine: Target) -> None:
    for _ in range(3):
        machine.run("bootcount")
    machine.console.expect("rolling back", timeout=2)


def test_a_good_boot_starts_again(machine: Target) -> None:
    machine.run("bootcount; bootcount good; bootcount")
    machine.console.expect("this boot is good")
    machine.console.expect("boot 1 of 3")
