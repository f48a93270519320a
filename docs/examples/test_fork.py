"""Branching: a second machine that goes on from where this one is now."""

from __future__ import annotations

from pytest_hil import Target


def test_two_futures_of_one_machine(hil: Target) -> None:
    hil.run("echo common > /tmp/history")
    twin = hil.fork()

    hil.run("echo left >> /tmp/history")
    twin.run("echo right >> /tmp/history")

    assert hil.run("cat /tmp/history").stdout == "common\nleft\n"
    assert twin.run("cat /tmp/history").stdout == "common\nright\n"


def test_twins_draw_different_random_numbers(hil: Target) -> None:
    twin = hil.fork()
    draw = "head -c 16 /dev/urandom | md5sum"
    assert hil.run(draw).stdout != twin.run(draw).stdout
