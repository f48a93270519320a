"""A smoke test of a kernel: it boots, it is quiet, its modules load, its parameters work."""

from __future__ import annotations

import re

import pytest

from pytest_hil import Target


def test_boots_without_a_warning(hil: Target) -> None:
    # A clone remembers the boot log of the machine that it was cloned from.
    assert re.findall(r"WARNING: .*|BUG: .*|Oops: .*", hil.console.text()) == []


def test_a_module_loads(hil: Target) -> None:
    hil.run("modprobe vhci-hcd")
    assert "vhci_hcd" in hil.run("lsmod").stdout


@pytest.mark.hil(append="panic_on_warn=1")
def test_with_other_parameters(hil: Target) -> None:
    assert hil.run("cat /proc/sys/kernel/panic_on_warn").stdout == "1\n"


def test_a_setting(hil: Target) -> None:
    hil.run("echo 3 > /proc/sys/kernel/printk")
    hil.run("echo '<5>not on the console' > /dev/kmsg; echo '<2>but this' > /dev/kmsg")
    hil.console.expect("but this")
    assert "not on the console" not in hil.console.text()
