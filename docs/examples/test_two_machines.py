"""More machines in one test: hil_open() opens as many as you need, and they end with the test."""

from __future__ import annotations

from collections.abc import Callable

from pytest_hil import Target


def test_two_machines(hil: Target, hil_open: Callable[..., Target]) -> None:
    other = hil_open()
    assert hil.run("hostname").stdout != other.run("hostname").stdout

    hil.run("touch /tmp/here")
    assert other.run("test -e /tmp/here", check=False).exit_code == 1


def test_a_bigger_one_beside_it(hil: Target, hil_open: Callable[..., Target]) -> None:
    bigger = hil_open(memory="512M")
    assert total_memory(bigger) > 1.5 * total_memory(hil)


def total_memory(target: Target) -> int:
    return int(target.run("awk '/MemTotal/ { print $2 }' /proc/meminfo").stdout)
