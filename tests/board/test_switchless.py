"""Boards that nobody can switch: they are taken as they are, wherever they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.rig.board import PASSWORD, PASSWORD_VARIABLE
from pytest_hil.rig.rig import Rig
from tests.board.test_faults import Clinic

WELL = """
def test_it(hil):
    assert hil.run("echo well").stdout == "well\\n"
"""


def unswitched(rig: Rig) -> None:
    """All boards run, and boards.toml knows of no switch."""
    text = re.sub(r"(?m)^power = .*\n", "", rig.boards_toml.read_text())
    rig.boards_toml.write_text(text)
    for board in rig.boards:
        board.power(True)


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Callable[..., Clinic]]:
    rigs = []

    def make(boards: int = 1) -> Clinic:
        rigs.append(Rig(boards))
        unswitched(rigs[-1])
        return Clinic(rigs[-1], tmp_path)

    yield make
    for rig in rigs:
        rig.close()


@pytest.mark.slow
def test_a_board_at_its_login_prompt_is_logged_in(clinic: Callable[..., Clinic]) -> None:
    """And what is asked of its power says what it lacks."""
    site = clinic()
    site.patience(boot=30.0, console=10.0)
    site.tests(
        WELL,
        """
import pytest
from pytest_hil.errors import Unsupported

def test_power(hil):
    for ask in (hil.power.read, hil.power.off, hil.power.cycle, lambda: hil.boot("off")):
        with pytest.raises(Unsupported, match="rig1 has no power switch"):
            ask()
""",
    )
    code, out = site.run(target="rig1")
    assert code == 0, out


@pytest.mark.slow
def test_a_wrong_password_is_an_error_of_the_boards(clinic: Callable[..., Clinic]) -> None:
    site = clinic()
    site.environment[PASSWORD_VARIABLE] = f"no {PASSWORD}"
    site.tests(WELL)
    code, out = site.run(target="rig1")
    assert code == 1
    said = r"the board rig1 did not reach shell: the password is wrong \(user root\)"
    assert re.search(f"^infrastructure: {said}; the console's last lines:", out, re.MULTILINE), out
    assert site.health["rig1"].errors == 1


@pytest.mark.slow
def test_a_silent_one_is_given_up_in_a_pool(clinic: Callable[..., Clinic]) -> None:
    site = clinic(2)
    site.patience(boot=8.0, console=2.0)
    site.rig.board("rig1").fault("dead")
    site.tests(WELL)
    code, out = site.run(target="rig")
    assert code == 0, out
    assert "the board rig1 is given up: the board rig1 did not reach shell: " in out
    assert site.health["rig1"].errors == 1
    assert site.health["rig2"].errors == 0
