"""Machines that restart: by themselves, by a panic, by the reset button."""

from __future__ import annotations

import pytest

from pytest_hil.errors import Crashed
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine


def test_a_reset_mends_a_panic(guest: Guest) -> None:
    with pytest.raises(Crashed, match="panicked"):
        guest.run("echo c > /proc/sysrq-trigger; sleep 100")
    guest.console.wait_closed(0.5)  # its last words have come
    guest.reset()
    assert guest.run("echo up").stdout == "up\n"


def test_a_machine_that_panicked_has_no_twin(guest: Guest) -> None:
    """And that is said, instead of waiting for it to answer."""
    with pytest.raises(Crashed, match="panicked"):
        guest.run("echo c > /proc/sysrq-trigger; sleep 100")
    with pytest.raises(Crashed, match="panicked"):
        guest.fork()
    assert guest.twins == ()


def test_a_kernel_that_reboots_after_its_panic_comes_back(guest: Guest) -> None:
    with guest.machine.monitor.waiter("RESET") as restart:
        with pytest.raises(Crashed, match="panicked"):
            guest.run("echo 1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger; sleep 100")
        restart.wait(30)
    assert guest.run("echo up").stdout == "up\n"


def test_what_was_said_before_a_restart_can_still_be_expected(guest: Guest) -> None:
    guest.run("echo something before > /dev/console")
    with guest.machine.monitor.waiter("RESET") as restart:
        guest.console.sendline("reboot -f")
        restart.wait(30)
    guest.console.expect("something before", timeout=10)
    assert guest.run("echo up").stdout == "up\n"
