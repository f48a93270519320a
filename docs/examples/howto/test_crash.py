"""A kernel that crashes is seen at once, and the next test has a machine that is whole."""

from __future__ import annotations

import pytest

from pytest_hil import Crashed, Target


def test_a_panic_ends_the_command(hil: Target) -> None:
    with pytest.raises(Crashed, match="the kernel of the machine qemu panicked"):
        hil.run("echo c > /proc/sysrq-trigger")
    hil.console.expect(r"Kernel panic - not syncing: (.*?)\r?\n", timeout=5)


def test_the_next_one_is_whole(hil: Target) -> None:
    assert hil.run("echo fine").stdout == "fine\n"
