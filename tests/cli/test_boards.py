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
    assert main(["boards", "check", *where]) == 2
    assert "[target.pi.usb] alow: unknown key" in "".join(capsys.readouterr())
