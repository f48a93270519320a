"""A kernel that crashes is seen at once, and the next test has a machine that is whole."""

from __future__ import annotations

import pytest

from pytest_hil import Target


def test_a_panic_that_is_wanted(hil: Target) -> None:
    with hil.crashes("sysrq triggered crash") as expected:
        hil.run("echo c > /proc/sysrq-trigger")
    assert expected.crashes[0].kind == "panic"
    assert "sysrq_handle_crash" in expected.crashes[0].text


@pytest.mark.hil(crash_ignore=["^hung task"])
def test_what_is_no_matter_here(hil: Target) -> None:
    assert hil.run("echo fine").stdout == "fine\n"


def test_the_next_one_is_whole(hil: Target) -> None:
    assert hil.run("echo fine").stdout == "fine\n"
