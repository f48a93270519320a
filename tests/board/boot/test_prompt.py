"""The boot stage ``prompt``: a real shell's, and whatever else has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.board.board import Board
from pytest_hil.board.boot.stage import StageFailed
from pytest_hil.rig.rig import Rig

Open = Callable[[str], Board]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """A light board with these stages before its login's."""
    with Rig() as rig:
        for name, value in rig.environment.items():
            monkeypatch.setenv(name, value)
        text = rig.boards_toml.read_text()

        def make(stage: str) -> Board:
            rig.boards_toml.write_text(text.replace("boot = [", f"boot = [{stage}, "))
            made = bench.open(bench.describe("rig1"))
            assert isinstance(made, Board)
            return made

        settings = Settings(root=tmp_path, boards=rig.boards_toml, lab=tmp_path / "lab")
        with Bench(settings) as bench:
            yield make


GETTY = r"""{driver = "prompt", name = "getty", prompt = 'login: ?\Z', go = "root", timeout = 20}"""


def test_in_and_out_of_it(opened: Open) -> None:
    board = opened(GETTY)
    assert board.run("echo there").stdout == "there\n"
    board.boot("getty")
    assert board.stage == "getty"
    assert board.console.tail(1) == "rig1 login: "
    board.boot()
    assert board.run("echo $USER").stdout == "root\n"


# A getty says "login: " anew for each return key.
TWICE = GETTY.replace("login: ?", r"login: .*login: ?")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_hil.board.boot.prompt._SILENCE", 0.3)


@pytest.mark.usefixtures("impatient")
def test_it_is_woken(opened: Open) -> None:
    assert opened(TWICE).run("echo there").stdout == "there\n"


@pytest.mark.usefixtures("impatient")
def test_it_is_left_alone(opened: Open) -> None:
    with pytest.raises(StageFailed, match="did not reach getty"):
        opened(TWICE.replace("timeout = 20", "timeout = 1, wake = false"))


def test_it_does_not_come(opened: Open) -> None:
    with pytest.raises(StageFailed, match=r"did not reach monitor: .*ok> ") as caught:
        opened("""{driver = "prompt", name = "monitor", prompt = "ok> ", timeout = 1}""")
    assert "rig1 login:" in str(caught.value)
