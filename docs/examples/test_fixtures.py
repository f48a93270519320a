"""Fixtures of your own build on `hil` as on any other."""

from __future__ import annotations

import pytest

from pytest_hil import Target


class Counter:
    """A service on the machine, as small as they get."""

    def __init__(self, target: Target) -> None:
        self._target = target
        target.run("echo 0 > /tmp/counter")

    def add(self, number: int) -> int:
        script = f"echo $(($(cat /tmp/counter) + {number})) > /tmp/counter; cat /tmp/counter"
        return int(self._target.run(script).stdout)


@pytest.fixture
def counter(hil: Target) -> Counter:
    return Counter(hil)


@pytest.mark.parametrize(("number", "result"), [(1, 1), (2, 2), (40, 40)])
def test_counts_from_zero(counter: Counter, number: int, result: int) -> None:
    assert counter.add(number) == result


def test_goes_on_counting(counter: Counter) -> None:
    counter.add(40)
    assert counter.add(2) == 42
