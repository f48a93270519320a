"""Each test has a fresh machine: whatever one does to it, the next one does not see."""

from __future__ import annotations

import pytest

from pytest_hil import Target

SECRET = "/etc/written-by-a-test"


@pytest.mark.parametrize("turn", ["first", "second", "third"])
def test_finds_nothing_and_leaves_something(hil: Target, turn: str) -> None:
    assert hil.run(f"cat {SECRET}", check=False).exit_code == 1
    hil.run(f"echo {turn} > {SECRET}")


def test_may_break_its_machine(hil: Target) -> None:
    hil.run("rm -rf /usr /lib /etc")


def test_has_one_that_is_whole(hil: Target) -> None:
    hil.run("test -d /etc")
