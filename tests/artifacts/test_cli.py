"""``pytest-hil artifacts``, through the real command line."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.artifacts.store import Run
from pytest_hil.cli.main import main
from pytest_hil.console.stream import clean

LS = [sys.executable, "-m", "pytest_hil.cli.main", "artifacts", "ls", "--run", "latest"]
ENV = {
    **{key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")},
    "PYTHONPATH": str(Path(__file__).parents[2]),
    "TERM": "xterm",
}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with three tests, in the directory above the one in which the user stands."""
    (tmp_path / "src").mkdir()
    monkeypatch.chdir(tmp_path / "src")
    run = Run.create(tmp_path / ".hil", argv=["pytest"], targets=["qemu"])
    first = run.test("tests/test_usb.py::test_plug[hid]", "qemu")
    first.events("clone", template="abc")
    (first.path / "console.log").write_bytes(b"boot\r\n\x1b[1mKernel panic\x1b[0m\r\n")
    first.finish("failed", duration=1.5)
    run.test("tests/test_usb.py::test_unplug", "qemu").finish("passed", duration=0.25)
    run.test("tests/test_net.py::test_ping", "qemu").events("boot")
    return run


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(["artifacts", *arguments]) == code
    out, err = capsys.readouterr()
    return out if code == 0 else err


def said_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json"))


def test_ls_lists_runs(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    header, line = said(capsys, "ls").splitlines()
    assert header.split() == ["run", "status", "tests", "targets"]
    assert line.split("  ")[0] == run.id
    assert "1 failed, 1 passed, 1 running" in line
    (facts,) = said_json(capsys, "ls")
    assert facts["id"] == run.id
    assert facts["path"] == str(run.path)
    assert facts["outcomes"] == {"failed": 1, "passed": 1, "running": 1}


def test_ls_lists_a_runs_tests(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "ls", "--run", "latest").splitlines()
    assert [line.split() for line in lines[1:3]] == [
        ["failed", "1.50", "qemu", "tests/test_usb.py::test_plug[hid]"],
        ["passed", "0.25", "qemu", "tests/test_usb.py::test_unplug"],
    ]
    facts = said_json(capsys, "ls", "--run", run.id)
    assert facts[0]["nodeid"] == "tests/test_usb.py::test_plug[hid]"
    assert facts[0]["files"].keys() == {"console.log", "events.jsonl", "meta.json"}


def test_show(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(capsys, "show", "plug[hid]")
    path = run.path / "tests-test_usb.py--test_plug-hid@qemu"
    assert text.splitlines()[0] == "tests/test_usb.py::test_plug[hid] on qemu: failed after 1.50 s"
    assert str(path) in text
    assert text.endswith("the console's last lines:\n  boot\n  Kernel panic\n")
    assert said(capsys, "show", "test_plug", "--path") == f"{path}\n"
    assert said(capsys, "show", "test_plug", "--console") == "boot\nKernel panic\n"
    event = said(capsys, "show", "test_plug", "--events")
    assert event.split()[1:] == ["s", "clone", 'template="abc"']
    assert said_json(capsys, "show", "test_plug", "--events")[0]["kind"] == "clone"
    assert said_json(capsys, "show", "test_plug")["outcome"] == "failed"


def test_an_event_whose_time_is_damaged(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (directory,) = run.path.glob("*test_ping*")
    with (directory / "events.jsonl").open("a") as file:
        file.write('{"t": "soon", "kind": "a"}\n{"kind": "b"}\n{"t": null, "kind": "c"}\n')
    shown = said(capsys, "show", "test_ping", "--events").splitlines()
    assert [line.split() for line in shown[1:]] == [["?", "s", kind] for kind in "abc"]


def test_wrong_names_get_an_answer(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    error = said(capsys, "show", "tests/test_usb.py::test_unplgu", code=2)
    assert "did you mean 'tests/test_usb.py::test_unplug'?" in error
    error = said(capsys, "show", "test_usb", code=2)
    assert "2 tests have 'test_usb'" in error
    assert "tests-test_usb.py--test_unplug@qemu" in error
    assert "there is no run '1999'" in said(capsys, "ls", "--run", "1999", code=2)
    assert "has no console" in said(capsys, "show", "test_ping", "--console", code=2)
    assert "not a directory" in said(capsys, "ls", "--artifacts", "nowhere", code=2)


def test_without_artifacts_it_says_where_it_looked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "there is no .hil here nor above" in said(capsys, "ls", code=2)
    (tmp_path / ".hil").mkdir()
    assert "no runs in" in said(capsys, "ls")
    assert said_json(capsys, "ls") == []


def test_clean(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run.finish()
    run.test("tests/test_net.py::test_ping", "qemu")
    newer = [Run.create(run.path.parents[1]) for _ in range(2)]
    for each in newer:
        each.finish()
    root = run.path.parents[1]
    # A test of the oldest is still "running", and its owner lives: it is kept.
    assert said_json(capsys, "clean", "--keep", "1")["removed"] == [newer[0].id]
    assert f"1 removed, 1 kept in {root}" in said(capsys, "clean", "--all")
    with pytest.raises(SystemExit):
        main(["artifacts", "clean", "--keep", "0"])
    assert "--all removes all" in capsys.readouterr().err


LONG = "tests/test_long.py::test_" + "x" * 120


def test_a_table_is_whole_where_no_person_reads_it(run: Run) -> None:
    run.test(LONG, "qemu").finish("passed")
    said = subprocess.run(LS, capture_output=True, text=True, timeout=60, check=True, env=ENV)
    assert LONG in said.stdout
    assert "\x1b" not in said.stdout


def test_a_table_fits_into_a_terminal(run: Run) -> None:
    run.test(LONG, "qemu").finish("passed")
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run(LS, stdout=terminal, timeout=60, check=True, env=ENV)
    os.close(terminal)
    shown = clean(os.read(screen, 65536)).splitlines()
    os.close(screen)
    assert len(shown) == 1 + 3 + 3
    assert max(len(line) for line in shown) <= 80
