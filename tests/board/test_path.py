"""The way through a board's boot."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.board.boot.path import OFF, Step, path


@dataclass(frozen=True)
class Stage:
    name: str
    passable: bool = False


UBOOT, LOGIN = Stage("bootloader", True), Stage("shell")
STOPPED = Stage("bootloader")


def moves(stages: list[Stage], at: str | None, to: str) -> str:
    return " ".join(f"{one.move}:{one.stage}".rstrip(":") for one in path(stages, at, to))


def test_only_what_is_needed() -> None:
    assert moves([UBOOT, LOGIN], OFF, "shell") == "on enter:shell"
    assert (
        moves([STOPPED, LOGIN], OFF, "shell") == "on enter:bootloader leave:bootloader enter:shell"
    )
    assert moves([UBOOT, LOGIN], OFF, "bootloader") == "on enter:bootloader"
    assert moves([UBOOT, LOGIN], "bootloader", "shell") == "leave:bootloader enter:shell"
    assert moves([UBOOT, LOGIN], "shell", "shell") == ""


def test_back_is_by_way_of_off() -> None:
    assert moves([UBOOT, LOGIN], "shell", "bootloader") == "off on enter:bootloader"
    assert moves([UBOOT, LOGIN], "shell", OFF) == "off"
    assert moves([UBOOT, LOGIN], OFF, OFF) == ""


def test_from_nobody_knows_where() -> None:
    assert moves([UBOOT, LOGIN], None, "shell") == "off on enter:shell"
    assert moves([UBOOT, LOGIN], None, OFF) == "off"


def test_what_has_no_switch_is_waited_for_where_nobody_knows_it() -> None:
    assert path([STOPPED, LOGIN], None, "shell", restart="nothing") == [Step("enter", "shell")]
    assert path([STOPPED, LOGIN], "bootloader", "shell", restart="nothing") == [
        Step("leave", "bootloader"),
        Step("enter", "shell"),
    ]
    assert path([STOPPED, LOGIN], None, OFF, restart="nothing") == [Step("off")]


def test_what_has_only_a_reset_line_begins_anew_by_it() -> None:
    stages = [STOPPED, LOGIN]
    again = [Step("reset"), Step("enter", "bootloader")]
    assert path(stages, "shell", "bootloader", restart="reset") == again
    further = [Step("leave", "bootloader"), Step("enter", "shell")]
    assert path(stages, None, "shell", restart="reset") == [*again, *further]
    assert path(stages, "bootloader", "shell", restart="reset") == further


def test_a_stage_that_there_is_not() -> None:
    with pytest.raises(KeyError, match="nowhere"):
        path([UBOOT], OFF, "nowhere")


@given(
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.integers(-2, 4),
    st.integers(-1, 4),
)
def test_every_way_ends_where_it_should(passable: list[bool], at: int, to: int) -> None:
    stages = [Stage(f"s{number}", one) for number, one in enumerate(passable)]
    names = [one.name for one in stages]
    begin = None if at == -2 else OFF if at == -1 else names[at % len(names)]
    end = OFF if to == -1 else names[to % len(names)]
    steps = path(stages, begin, end)
    assert steps or begin == end
    if steps:
        assert steps[-1] == (Step("off") if end == OFF else Step("enter", end))
    # What is entered on the way is left again, and in the order of the boot.
    entered = [names.index(one.stage) for one in steps if one.move == "enter"]
    assert entered == sorted(set(entered))
    for before, after in itertools.pairwise(steps):
        if before.move == "enter":
            assert after == Step("leave", before.stage)
