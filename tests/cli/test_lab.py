"""``pytest-hil lab``: as a process, in a lab of the test's own."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.lab.lease import Lab

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

NOBODY = "no-such-user"


@pytest.fixture
def lab(cli: Cli, tmp_path: Path) -> Lab:
    cli.env["PYTEST_HIL_LAB"] = str(tmp_path / "lab")
    return Lab(tmp_path / "lab")


def test_nothing_yet(cli: Cli, lab: Lab) -> None:
    assert cli("lab", "status").stdout == "no board was leased or reserved yet\n"
    assert cli("lab", "queue").stdout == "nobody waits\n"
    assert cli("lab", "history").stdout == "nothing happened yet\n"
    for action in ("status", "queue", "history"):
        assert cli.json("lab", action) == []


def test_who_has_a_board(cli: Cli, lab: Lab) -> None:
    with lab.acquire(["rpi4"], run="run7", purpose="nightly") as lease:
        said = cli("lab", "status").stdout.splitlines()
        assert said[0].split() == ["board", "state", "since", "who", "run", "for", "waiting"]
        assert said[1].startswith("rpi4   leased")
        assert f"({lease.holder.pid})  run7  nightly  -" in said[1]
        (row,) = cli.json("lab", "status", "rpi4")
        assert (row["board"], row["state"], row["queue"]) == ("rpi4", "leased", [])
        assert row["holder"]["pid"] == lease.holder.pid
        assert row["holder"]["run"] == "run7"
        assert set(row["holder"]) == {"user", "host", "pid", "run", "purpose", "since"}
        # A live lease is its holder's, whatever is forced.
        error = cli.error("lab", "release", "--force", "rpi4", code=1)
        assert f"process {lease.holder.pid}, run run7" in error
    (row,) = cli.json("lab", "status")
    assert row["state"] == "free"


def test_a_purpose_steers_no_terminal(cli: Cli, lab: Lab) -> None:
    """It has the name of a directory, which can be anything."""
    with lab.acquire(["rpi4"], purpose="pytest in \x1b[31mred\nnext"):
        for action in ("status", "history"):
            assert "pytest in ␛[31mred next" in cli("lab", action).stdout


def test_reserving(cli: Cli, lab: Lab) -> None:
    said = cli("lab", "reserve", "rpi4", "--for", "2h", "--user", NOBODY, "--reason", "demo")
    assert said.stdout.startswith(f"rpi4 is reserved for {NOBODY} by ")
    assert said.stdout.endswith("(demo)\n")
    (row,) = cli.json("lab", "status")
    assert row["state"] == "reserved"
    assert row["reservation"]["until"] == pytest.approx(time.time() + 7200, abs=60)
    shown = cli("lab", "status").stdout
    assert f"  {NOBODY}  -    demo  -\n" in shown
    assert shown.splitlines()[1].startswith("rpi4   reserved  20")
    assert f"\nrpi4 is reserved for {NOBODY} by " in shown
    assert "it is not any more" in cli("lab", "release", "rpi4").stdout
    assert cli("lab", "release", "rpi4").stdout == "rpi4 was not reserved, and is free\n"
    assert cli.json("lab", "release", "rpi4") == {"board": "rpi4", "ended": None}


def test_reserving_what_somebody_has(cli: Cli, lab: Lab) -> None:
    with lab.acquire(["rpi4"], run="run7", purpose="nightly"):
        said = cli("lab", "reserve", "rpi4", "--until", "2100-01-01", code=2).stdout
        assert said == ""
        assert "until they give it back" in cli("lab", "reserve", "rpi4", "--for", "1d").stdout
        one = cli.json("lab", "reserve", "rpi4", "--until", "12:00")
        assert 0 < one["until"] - time.time() <= 86400
        assert one["holder"]["purpose"] == "nightly"


def test_who_waits(cli: Cli, lab: Lab) -> None:
    asked: list[tuple[str, str]] = []

    def look(_why: str) -> None:
        asked.append((cli("lab", "queue").stdout, cli("lab", "status").stdout))
        (row,) = cli.json("lab", "queue")
        assert (row["wants"], row["priority"], row["run"]) == (["rpi4"], 3, "run8")
        assert cli.json("lab", "status")[0]["queue"] == [row]
        holder.release()

    holder = lab.acquire(["rpi4"], run="run7", purpose="nightly")
    lab.acquire(["rpi4"], run="run8", purpose="mine", priority=3, wait=30, on_wait=look).release()
    queue, status = asked[0]
    assert queue.splitlines()[1].startswith("1     rpi4          3 ")
    assert status.splitlines()[1].endswith("  1")


def test_what_happened(cli: Cli, lab: Lab) -> None:
    lab.acquire(["rpi4"], run="run7", purpose="nightly").release()
    lab.reserve("rpi4", seconds=60)
    rows = cli.json("lab", "history")
    assert [one["what"] for one in rows] == ["taken", "released", "reserved"]
    assert [one["what"] for one in cli.json("lab", "history", "-n", "1")] == ["reserved"]
    said = cli("lab", "history").stdout.splitlines()
    assert "rpi4   released  0 s" in said[2]


def test_another_directory(cli: Cli, lab: Lab, tmp_path: Path) -> None:
    cli("lab", "reserve", "x", "--for", "60", "--directory", str(tmp_path / "other"))
    assert cli.json("lab", "status") == []
    (row,) = cli.json("lab", "status", "--directory", str(tmp_path / "other"))
    assert row["board"] == "x"


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["reserve", "rpi4"], "one of the arguments --for --until is required"),
        (["reserve", "rpi4", "--for", "soon"], "'soon' is no time"),
        (["reserve", "rpi4", "--for", "0"], "'0' is no time"),
        (["reserve", "rpi4", "--until", "25:00"], "'25:00' is no time"),
        (["reserve", "rpi4", "--until", "2001-01-01"], "must end in the future"),
        (["reserve", "a/b", "--for", "1h"], "cannot be a board's name"),
        (["status", "../x"], "cannot be a board's name"),
        (["history", "-n", "0"], "'0' is no number above 0"),
        (["lend"], "invalid choice: 'lend'"),
    ],
)
def test_wrongly_asked(cli: Cli, lab: Lab, arguments: list[str], error: str) -> None:
    assert error in cli.error("lab", *arguments)


def test_a_directory_that_cannot_be_used(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = cli.error("lab", "status", "--directory", str(tmp_path / "file"), code=1)
    assert "cannot be used" in said
    assert "PYTEST_HIL_LAB" in said
