"""``pytest-hil lab health``: as a process, in a lab of the test's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.lab.health_book import HealthBook
from pytest_hil.lab.lease import Lab
from pytest_hil.rig.rig import Rig

if TYPE_CHECKING:
    from tests.cli.conftest import Cli


@pytest.fixture
def book(cli: Cli, tmp_path: Path) -> HealthBook:
    cli.env["PYTEST_HIL_LAB"] = str(tmp_path / "lab")
    return HealthBook(tmp_path / "lab")


def test_nothing_yet(cli: Cli, book: HealthBook) -> None:
    assert cli("lab", "health").stdout == "nothing is known of any board yet\n"
    assert cli.json("lab", "health") == []
    assert cli("lab", "health", "rpi4").stdout.startswith("rpi4 is healthy\n")
    assert not book.directory.exists()


def test_a_board_that_is_ill(cli: Cli, book: HealthBook) -> None:
    for _ in range(3):
        book.failed(
            "rpi4", "the board rpi4 did not reach shell: \x1b[2J; the console's last lines:"
        )
    book.used("pi2")
    table = [line.split() for line in cli("lab", "health").stdout.splitlines()]
    assert table[0] == [
        "board",
        "state",
        "errors",
        "since",
        "last",
        "good",
        "next",
        "try",
        "reason",
    ]
    assert table[1][:3] == ["pi2", "healthy", "0"]
    assert table[2][:3] == ["rpi4", "quarantined", "3"]
    assert " ".join(table[2]).endswith("did not reach shell: ␛[2J")
    said = cli("lab", "health", "rpi4").stdout
    assert said.startswith("rpi4 is quarantined since ")
    assert "lab health rpi4 --check tries it, --clear lifts it" in said
    (facts,) = cli.json("lab", "health", "rpi4")
    assert (facts["state"], facts["errors"], facts["by"]) == ("quarantined", 3, "")
    assert facts["retry_at"] > time.time()
    assert cli("lab", "health", "rpi4", "--clear").stdout.startswith("rpi4 is healthy\n")
    assert book.look()["rpi4"].state == "healthy"


def test_by_hand(cli: Cli, book: HealthBook) -> None:
    said = cli("lab", "health", "rpi4", "--quarantine", "its relay smells").stdout
    assert ": its relay smells; until it is lifted" in said
    assert "when cleared" in cli("lab", "health").stdout
    assert book.look()["rpi4"].barred(time.time() + 1e8)
    assert cli("lab", "history").stdout.splitlines()[-1].split()[2:4] == ["rpi4", "quarantined"]


def test_wrongly_asked(cli: Cli, book: HealthBook) -> None:
    assert "which board?" in cli.error("lab", "health", "--clear")
    assert "say why" in cli.error("lab", "health", "rpi4", "--quarantine", " ")
    assert "not allowed with" in cli.error("lab", "health", "rpi4", "--clear", "--check")
    assert "there is no board 'rpi4'" in cli.error("lab", "health", "rpi4", "--check")
    assert "cannot be a board's name" in cli.error("lab", "health", "../x", "--clear")


def test_checking(cli: Cli, book: HealthBook) -> None:
    with Rig(boards=1) as rig:
        cli.env.update(rig.environment)
        words = ("lab", "health", "rig1", "--check", "--boards", str(rig.boards_toml))
        with Lab(book.directory).acquire(["rig1"], purpose="soldering"):
            assert "(soldering)" in cli.error(*words, code=1)
        assert book.look(["rig1"])["rig1"].last_error == 0
        done = cli(*words)
        steps = [line.split(",")[0] for line in done.stderr.splitlines() if ", " in line]
        assert [each for each in steps if "way" not in each] == [
            *("rig1: off", "rig1: on", "rig1: enter shell")
        ]
        assert done.stdout.startswith("rig1 is healthy\n")
        assert book.look()["rig1"].last_good > 0
        rig.board("rig1").fault("stuck-relay")
        assert "was told Off and says the opposite" in cli.error(*words, code=1)
        assert book.look()["rig1"].state == "suspect"
        assert Lab(book.directory).status(["rig1"])[0].holder is None
