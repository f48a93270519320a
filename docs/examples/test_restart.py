"""Restarting: the reset button, the power switch, and what survives them."""

from __future__ import annotations

from pytest_hil import Target


def test_reset(hil: Target) -> None:
    hil.run("touch /tmp/gone")  # the root file system is in memory
    hil.reset()
    assert hil.run("test -e /tmp/gone", check=False).exit_code == 1


def test_power_cycle(hil: Target) -> None:
    before = boot_id(hil)
    hil.power.cycle()
    assert boot_id(hil) != before


def test_power_off_and_on(hil: Target) -> None:
    hil.power.off()
    assert not hil.power.read()
    hil.power.on()
    assert hil.power.read()


def boot_id(target: Target) -> str:
    return target.run("cat /proc/sys/kernel/random/boot_id").stdout
