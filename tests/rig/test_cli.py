"""``pytest-hil rig up`` as a process."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import tomllib
import urllib.request
from pathlib import Path

import pytest

from pytest_hil.cli.main import Verb, main

PROGRAM = """
import sys
from pytest_hil.cli.main import Verb, main
sys.exit(main(sys.argv[1:], verbs={"rig": Verb("pytest_hil.cli.rig", "")}))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_until_it_is_told_to_end(number: signal.Signals) -> None:
    argv = [sys.executable, "-c", PROGRAM, "rig", "up", "--boards", "3"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as rig:
        assert rig.stdout is not None
        said = ""
        for line in rig.stdout:
            said += line
            if line.startswith("Ctrl-C"):
                break
        boards = Path(re.findall(r"^boards: (.*)$", said, re.MULTILINE)[0])
        assert list(tomllib.loads(boards.read_text())["target"]) == ["rig1", "rig2", "rig3"]
        url = re.findall(r"http://\S+", said)[0]
        with urllib.request.urlopen(f"{url}/cm?cmnd=Power2%20On", timeout=10) as answer:
            assert json.load(answer) == {"POWER2": "ON"}
        assert f"HIL_RIG_PASSWORD=hil pytest --hil-boards={boards} --hil-target=rig1" in said
        rig.send_signal(number)
        assert rig.wait(10) == 0
    assert not boards.exists()
    assert not boards.parent.exists()


def test_more_arm64_boards_than_boards(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = {"rig": Verb("pytest_hil.cli.rig", "")}
    assert main(["rig", "up", "--boards", "1", "--arm64", "2"], verbs=verbs) == 2
    assert "--arm64 2 of --boards 1 not more than all" in " ".join(capsys.readouterr().err.split())
