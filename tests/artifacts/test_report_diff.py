"""``pytest-hil diff`` and ``pytest-hil report``, through the real command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.artifacts.report import diff
from pytest_hil.artifacts.report.gather import Test
from pytest_hil.artifacts.store import Run
from pytest_hil.cli.main import main
from tests.artifacts.runs import START, add


def ended(*entries: tuple[str, str, float]) -> list[Test]:
    return [Test(name, "qemu", outcome=outcome, duration=took) for name, outcome, took in entries]


def names(changes: list[diff.Change]) -> list[str]:
    return [change.nodeid for change in changes]


def test_what_changed() -> None:
    before = ended(
        *(
            ("same", "passed", 1),
            ("broke", "passed", 1),
            ("mended", "failed", 1),
            ("gone", "passed", 1),
        ),
        *(("bad", "failed", 1), ("was skipped", "skipped", 0), ("no more run", "error", 1)),
    )
    after = ended(
        *(
            ("same", "passed", 1),
            ("broke", "failed", 1),
            ("mended", "passed", 1),
            ("bad", "error", 1),
        ),
        *(("was skipped", "interrupted", 0), ("no more run", "skipped", 0), ("more", "passed", 1)),
        *(("more bad", "failed", 1), ("shaky", "rerun", 1), ("shaky", "passed", 1)),
    )
    found = diff.difference(before, after)
    assert names(found.new) == ["broke", "was skipped", "more bad"]
    assert names(found.fixed) == ["mended"]
    assert names(found.still) == ["bad"]
    assert names(found.added) == ["more", "more bad", "shaky"]
    assert names(found.removed) == ["gone"]
    assert names(found.flaky) == ["shaky"]
    assert found.slower == []


def test_the_same_test_on_another_target_is_another() -> None:
    before = [Test("a", "qemu", outcome="passed"), Test("a", "rpi4", outcome="failed")]
    after = [Test("a", "qemu", outcome="failed"), Test("a", "rpi4", outcome="passed")]
    found = diff.difference(before, after)
    assert [(c.target, c.before, c.after) for c in found.new] == [("qemu", "passed", "failed")]
    assert [c.target for c in found.fixed] == ["rpi4"]


def test_slower_is_beside_the_pace_of_all() -> None:
    steady = [(f"t{n}", "passed", 2.0) for n in range(10)]
    before = ended(
        *steady, ("slow", "passed", 2.0), ("short", "passed", 0.01), ("bad", "failed", 1)
    )
    after = ended(*steady, ("slow", "passed", 4.0), ("short", "passed", 0.3), ("bad", "failed", 9))
    assert names(diff.difference(before, after).slower) == ["slow"]
    # The whole host was twice as slow: that is nobody's doing.
    busy = ended(*((n, o, 2 * d) for n, o, d in steady), ("slow", "passed", 9.0))
    found = diff.difference(before, busy)
    assert (found.pace, names(found.slower)) == (2.0, ["slow"])
    assert names(diff.difference(before, busy, slower=2.5).slower) == []


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Run, Run]:
    monkeypatch.chdir(tmp_path)
    before, after = (Run.create(tmp_path / ".hil", targets=["qemu"]) for _ in range(2))
    add(before, "t.py::test_a", "passed")
    add(after, "t.py::test_a", "failed", reason="AssertionError: \x1b[31mno")
    add(before, "t.py::test_b", "failed")
    add(after, "t.py::test_b", "passed")
    for run in (before, after):
        run.finish()
    return before, after


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    return code, out or err


def test_diff_says_it(two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = two
    code, text = said(capsys, "diff", before.id)
    assert code == 1
    assert (
        "1 newly failing:\n  t.py::test_a on qemu: passed → failed: AssertionError: ␛[31mno" in text
    )
    assert "1 fixed:\n  t.py::test_b on qemu: passed" in text
    code, text = said(capsys, "diff", after.id, before.id)
    assert code == 1
    code, text = said(capsys, "diff", after.id, after.id)
    assert code == 0
    assert "1 still failing" in text


def test_diff_as_json(two: tuple[Run, Run], capsys: pytest.CaptureFixture[str]) -> None:
    before, after = two
    code, text = said(capsys, "diff", before.id, after.id, "--json")
    found: dict[str, Any] = json.loads(text)
    assert code == 1
    assert (found["before"], found["after"]) == (before.id, after.id)
    assert [change["nodeid"] for change in found["new"]] == ["t.py::test_a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["diff", "1999"], "/.hil: there is no run '1999'"),
        (["diff", "latest", "--slower=0"], "'0' is no factor"),
        (["report", "--output=-"], "a page cannot go to stdout"),
        (["report", "nosuch"], "there is no run 'nosuch'"),
        (
            ["report", "--output=no/such/place.html"],
            "no/such/place.html cannot be written: No such file or directory",
        ),
    ],
)
def test_wrongly_asked(
    two: tuple[Run, Run], capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    try:
        code = main(arguments)
    except SystemExit as left:
        code = int(left.code or 0)
    assert code in (1, 2)
    assert message in capsys.readouterr().err


def test_report_makes_a_page(
    two: tuple[Run, Run], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    _, after = two
    code, text = said(capsys, "report")
    assert (code, text) == (0, f"{after.path / 'report.html'}\n")
    assert b"test_a" in (after.path / "report.html").read_bytes()
    code, text = said(capsys, "report", str(after.path), "--output", str(tmp_path))
    assert (code, text) == (0, f"{tmp_path / 'report.html'}\n")
    code, text = said(capsys, "report", "--format=ctrf", "--output=-")
    assert json.loads(text)["results"]["summary"]["tests"] == 2


def test_a_run_that_goes_on_can_be_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.create(tmp_path / ".hil")
    run.test("t.py::test_a", "qemu").events("ready")
    add(run, "t.py::test_b", start=START)
    assert said(capsys, "report")[0] == 0
    assert '"running"' in (run.path / "report.html").read_text()
