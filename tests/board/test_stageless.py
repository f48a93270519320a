"""Boards without boot stages, or with a firmware at their end: a console and power, no shell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.rig.rig import Rig
from tests.board.test_faults import Clinic

TESTS = """
import pytest
from pytest_hil.errors import Unsupported

def test_console(hil):
    assert hil.stage is None
    assert hil.power.read()
    hil.console.send("\\r")
    hil.console.expect("rig1 login: ")

def test_what_is_missing(hil):
    with pytest.raises(Unsupported) as caught:
        hil.boot()
    assert "rig1 has no boot stages" in str(caught.value)
    assert "[[target.rig1.boot]]" in str(caught.value)
    with pytest.raises(Unsupported) as caught:
        hil.run("true")
    assert "rig1 has no shell to run a command" in str(caught.value)
    assert "[[target.rig1.boot]]" in str(caught.value)

def test_power(hil):
    hil.power.off()
    assert (hil.stage, hil.power.read()) == ("off", False)
    hil.power.on()
    hil.console.expect("rig1 login: ")
    hil.power.cycle()
    hil.console.expect("rig1 login: ")
    hil.reset()
    hil.console.expect("rig1 login: ")
    hil.boot("off")

def test_again(hil):
    assert hil.power.read()
    hil.console.expect("rig1 login: ")
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Clinic]:
    with Rig() as rig:
        text = re.sub(r"(?m)^(boot|shell) = .*\n", "", rig.boards_toml.read_text())
        rig.boards_toml.write_text(text)
        yield Clinic(rig, tmp_path)


@pytest.mark.slow
def test_it_has_a_console_and_power(site: Clinic) -> None:
    site.tests(TESTS)
    code, out = site.run(target="rig1")
    assert code == 0, out


@pytest.mark.slow
@pytest.mark.parametrize("between", ["cycle", "reset"])
def test_between_two_tests_it_starts_anew(site: Clinic, between: str) -> None:
    text = site.rig.boards_toml.read_text()
    text = text.replace("\nconsole", f'\nbetween = "{between}"\nconsole')
    site.rig.boards_toml.write_text(text)
    login = "(hil):\n    hil.console.expect('rig1 login: ')\n"
    site.tests(f"def test_one{login}", f"def test_two{login}")
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert site.rig.board("rig1").record.count("on") == 2


@pytest.mark.slow
def test_one_whose_switch_cannot_say_is_switched_on_once(site: Clinic, tmp_path: Path) -> None:
    log = tmp_path / "log"
    on, off = (f'"echo {word} >> {log}"' for word in ("on", "off"))
    power = f'power = {{ driver = "command", on = {on}, off = {off} }}'
    text = re.sub(r"(?m)^power = .*", power, site.rig.boards_toml.read_text())
    site.rig.boards_toml.write_text(text)
    site.tests("def test_one(hil):\n    pass\n", "def test_two(hil):\n    pass\n")
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert log.read_text() == "on\n"


FIRMWARE = """
import pytest
from pytest_hil.errors import Unsupported

def test_its_prompt(hil):
    assert hil.stage == "prompt"
    assert "shell" not in hil.features
    hil.console.send("nobody\\r")
    hil.console.expect("Password: ")
    with pytest.raises(Unsupported) as caught:
        hil.run("true")
    assert "rig1 has no shell to run a command" in str(caught.value)
    assert 'shell = "none"' in str(caught.value)

def test_again(hil):
    hil.boot("off")
    hil.boot()
    hil.console.send("nobody\\r")
    hil.console.expect("Password: ")

@pytest.mark.hil(features=["shell"])
def test_of_a_shell(hil):
    raise AssertionError("it has none")
"""


@pytest.mark.slow
def test_a_firmwares_prompt_is_no_shell(site: Clinic) -> None:
    """Nobody looks for one there either: not for coverage, taint, pstore."""
    text = site.rig.boards_toml.read_text()
    stage = '{ driver = "prompt", prompt = "login: ", timeout = 30 }'
    site.rig.boards_toml.write_text(f'{text}boot = [{stage}]\nshell = "none"\n')
    site.tests(FIRMWARE)
    more = ("--hil-cov", "-o", "hil_taint=true", "-o", "hil_pstore=true")
    code, out = site.run(*more, target="rig1")
    assert code == 0, out
    assert "2 passed, 1 skipped" in out
