"""Boards that nobody can switch: they are taken as they are, wherever they stand."""

from __future__ import annotations

import re
import shlex
import sys
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


RESETS = """
import pytest
from pytest_hil.errors import Unsupported

def test_it_begins_anew(hil):
    hil.reset()
    assert hil.run("echo well").stdout == "well\\n"
    with pytest.raises(Unsupported, match="rig1 has no power switch"):
        hil.power.cycle()

def test_it_is_lost(fault, hil):
    # Somebody has typed "exit", and nobody noticed.
    hil.console.send("exec sleep 1000000\\r")

def test_it_is_found(hil):
    assert hil.run("echo well").stdout == "well\\n"
"""


@pytest.mark.slow
def test_a_reset_line_does_what_a_power_switch_would(tmp_path: Path) -> None:
    """It gets a board back that does not answer."""
    with Rig() as rig:
        url = rig.switchboard.url
        hold, let_go = (
            shlex.join(
                [
                    *(sys.executable, "-c"),
                    "import sys, urllib.request as r; r.urlopen(sys.argv[1]).read()",
                    f"{url}/cm?cmnd=Power1%20{word}",
                ]
            )
            for word in ("Off", "On")
        )
        unswitched(rig)
        text = rig.boards_toml.read_text()
        line = f"reset = {{ driver = 'command', on = {hold!r}, off = {let_go!r} }}"
        text = text.replace("\nconsole = ", f"\n{line}\nconsole = ")
        rig.boards_toml.write_text(text)
        site = Clinic(rig, tmp_path)
        site.tests(RESETS)
        code, out = site.run(target="rig1")
        assert code == 0, out
        # By hand, to know where it is, by the test, and when it did not answer.
        assert rig.board("rig1").record.count("on") == 4
