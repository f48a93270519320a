"""``pytest-hil boards``: what is said of a board, with nothing switched or opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pytest_hil.cli.main import main

BOARD = """
[target.pi]
backend = "board"
console = {driver = "tcp", address = "lab:4001"}
usb = {address = "10.0.0.1", allow = ["10.0.0.7"]}
"""


USB = """
usb:
  address = 10.0.0.1
  listen = 10.0.0.1
  port = 0
  allow = 10.0.0.7
"""


def test_how_usb_devices_come_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(BOARD)
    where = ["--boards", str(path)]
    assert main(["boards", "show", "pi", *where]) == 0
    assert USB in capsys.readouterr().out
    assert main(["boards", "show", "pi", "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["usb"]["allow"] == "10.0.0.7"
    assert main(["boards", "check", *where]) == 0
    path.write_text(BOARD.replace("allow", "alow"))
    assert main(["boards", "check", *where]) == 1
    assert "[target.pi.usb] alow: unknown key" in capsys.readouterr().out


WRONG = """
[target.pi]
backend = "board"
console = {driver = "tcp", adress = "lab:4001"}
power = {driver = "tasmota", ulr = "http://x"}
reset = "relais"
shell = {driver = "ssh", host = "pi", usr = "me"}
boot = ["u-boot", {driver = "login", timeout = "long"}]
[target.pi2]
backend = "board"
console = {driver = "tcp", address = "lab:4002"}
boot = {driver = "login", user = 5}
[target.pi3]
backend = "board"
console = {driver = "tcp", address = "lab:4003"}
boot = ["login", "login"]
"""


def test_all_that_is_wrong_is_said_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(WRONG)
    assert main(["boards", "check", "--boards", str(path)]) == 1
    said = capsys.readouterr()
    assert not said.err
    for one in (
        "[target.pi.console] adress: unknown key",
        "[target.pi.console] address: missing",
        "[target.pi.power] ulr: unknown key",
        "[target.pi.power] url: missing",
        "[target.pi.reset] driver: there is no power driver 'relais'",
        "[target.pi.shell] usr: unknown key",
        "[target.pi.boot[1]] timeout: found 'long'",
        "[target.pi2.boot] user: found 5",
        "[target.pi3.boot[1]] name: 'shell' is there twice",
    ):
        assert said.out.count(one) == 1, one
    assert "boards.toml: 7 errors" in said.out


def test_what_check_finds_is_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whether the whole file is wrong, or a driver's table: on stdout, with exit code 1."""
    path = tmp_path / "boards.toml"
    where = ["--boards", str(path)]
    for text in (None, "not TOML", BOARD + "nonsense = 1", BOARD.replace("address =", "adress =")):
        if text is not None:
            path.write_text(text)
        assert main(["boards", "check", *where]) == 1
        said = capsys.readouterr()
        assert said.out.startswith(f"{path}: ")
        assert not said.err
    # Of whatever else is asked, it is what was wrongly asked with.
    assert main(["boards", "list", "--boards", str(tmp_path / "other.toml")]) == 2
    assert capsys.readouterr().err


def test_the_shells_drivers_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["boards", "drivers", "shell"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("shell:\n  none\n  serial\n    where ")
    assert "\n  ssh\n    host " in said
    assert main(["boards", "drivers", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) == {"boot", "console", "power", "shell"}
    path = tmp_path / "boards.toml"
    path.write_text(BOARD + 'shell = "serial"')
    assert main(["boards", "show", "pi", "--boards", str(path)]) == 0
    assert "shell:\n  driver = serial\n  where = /tmp\n" in capsys.readouterr().out


def test_what_a_groups_table_says_wrong_is_said_once_and_where_it_stands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "boards.toml"
    path.write_text(
        "[group.a]\nbackend = 'board'\nconsole = {driver = 'tcp', adress = 'lab:1'}\n"
        "[target.b]\ngroup = 'a'\n[target.c]\ngroup = 'a'\n"
        "[target.d]\ngroup = 'a'\nconsole = {driver = 'tcp', addres = 'lab:1'}\n"
    )
    assert main(["boards", "check", "--boards", str(path)]) == 1
    said = capsys.readouterr().out
    assert said.count("[group.a.console] adress: unknown key") == 1
    assert said.count("[target.d.console] addres: unknown key") == 1
    assert "[target.b" not in said
