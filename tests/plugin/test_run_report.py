"""What a real run leaves for its readers: results.jsonl, report.html, ctrf.json, attachments."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.unprivileged import UNPRIVILEGED

# A board that says something and is ready; and what can become of tests of it.
BOARDS = """
[target.echo]
backend = "board"
arch = "x86_64"
console.driver = "command"
console.command = ["sh", "-c", "printf 'I am <b>ready\\\\r\\\\n# '; exec cat"]
power = { driver = "command", on = "true", off = "true" }
boot = [{ driver = "prompt", prompt = "# " }]
"""

TESTS = """
import pytest

@pytest.mark.smoke
def test_bad(hil):
    assert "ready" in hil.console.text()
    assert 0, "no <luck>"

def test_plain(): pass

@pytest.mark.skip(reason="needs a new board")
def test_skipped(): pass

@pytest.mark.xfail(reason="bug 12")
def test_known(): assert 0

@pytest.fixture
def broken(): raise RuntimeError("the relay is gone")

def test_broken(broken): pass

@pytest.fixture
def untidy():
    yield
    raise RuntimeError("not tidied up")

def test_untidy(untidy): assert 0, "first"
"""


@pytest.fixture
def site(plain: pytest.Pytester) -> pytest.Pytester:
    (plain.path / "boards.toml").write_text(BOARDS)
    (plain.path / "pytest.ini").write_text("[pytest]\nmarkers = smoke\n")
    (plain.path / "test_it.py").write_text(TESTS)
    return plain


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_leaves_a_report_of_all_its_tests(site: pytest.Pytester) -> None:
    """And pytest-html and Allure, where they are asked for, get consoles and crashes."""
    done = site.runpytest_subprocess(
        "--hil-target=echo", "--html=html/r.html", "--alluredir=allure", "--hil-boot-timeout=50"
    )
    done.assert_outcomes(passed=1, failed=2, skipped=1, xfailed=1, errors=2)
    (run,) = (site.path / ".hil" / "runs").iterdir()
    done.stdout.fnmatch_lines([f"hil: report: .hil/runs/{run.name}/report.html"])
    results = {line["nodeid"].partition("::")[2]: line for line in lines(run / "results.jsonl")}
    assert {name: line["outcome"] for name, line in results.items()} == {
        "test_bad": "failed",
        "test_plain": "passed",
        "test_skipped": "skipped",
        "test_known": "xfailed",
        "test_broken": "error",
        "test_untidy": "error",
    }
    bad = results["test_bad"]
    assert (bad["target"], bad["directory"], bad["markers"]) == (
        "echo",
        "test_it.py--test_bad@echo",
        ["smoke"],
    )
    assert bad["reason"] == "AssertionError: no <luck>"
    assert 'assert 0, "no <luck>"' in bad["text"]
    assert bad["phases"].keys() == {"setup", "call", "teardown"}
    assert results["test_skipped"]["reason"] == "needs a new board"
    assert results["test_untidy"]["reason"] == "AssertionError: first"
    assert "not tidied up" in results["test_untidy"]["text"]

    directory = run / bad["directory"]
    meta = json.loads((directory / "meta.json").read_text())
    (ready,) = (line for line in lines(directory / "events.jsonl") if line["kind"] == "ready")
    assert ready["description"]["arch"] == "x86_64"
    # All of it on one clock, whose beginning is that of the test.
    assert 0 < ready["seconds"] <= ready["t"] <= meta["duration"]
    facts = json.loads((run / "run.json").read_text())
    assert facts["options"] == ["--hil-boot-timeout=50.0"]
    assert facts["root"] == str(site.path)

    page = (run / "report.html").read_text()
    assert "2 failed" not in page
    assert "1 failed, 2 error, 1 passed" in page
    ctrf = json.loads((run / "ctrf.json").read_text())
    assert ctrf["results"]["summary"]["tests"] == 6

    assert "I am &lt;b&gt;ready" in all_text(site.path / "html") or "I am <b>ready" in all_text(
        site.path / "html" / "assets"
    )
    attached = [path.read_text() for path in (site.path / "allure").glob("*-attachment.txt")]
    assert any("I am <b>ready" in text for text in attached)


def test_allure_tells_what_failed_from_what_broke(site: pytest.Pytester) -> None:
    (site.path / "test_it.py").write_text(
        """
from pytest_hil.errors import ChannelLost

def test_target(hil): hil.console.expect("never said", timeout=0.01)
def test_ours(hil): raise ChannelLost("the adapter is gone")
"""
    )
    done = site.runpytest_subprocess("--hil-target=echo", "--alluredir=allure")
    done.assert_outcomes(failed=1, errors=1)
    found = (json.loads(path.read_text()) for path in (site.path / "allure").glob("*-result.json"))
    statuses = {one["name"]: one["status"] for one in found}
    assert statuses == {"test_target": "failed", "test_ours": "broken"}


# What plugins do that try failed tests again: {told} reports of a try that failed.
TRIES = """
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    again = True
    while again:
        again = False
        for report in runtestprotocol(item, nextitem=nextitem, log=False):
            if report.failed and not item.tries:
                report.outcome, again = "rerun", True
            if not again or report.outcome == "rerun" or {told!r} == "all":
                item.ihook.pytest_runtest_logreport(report=report)
        item.tries.append(1)
    return True

def pytest_itemcollected(item):
    item.tries = []
"""

TRIED = """
from pytest_hil.errors import ChannelLost

tries = []

def test_has_a_run(hil): pass

def test_breaks_once():
    tries.append(1)
    if len(tries) == 1:
        raise ChannelLost("the way is gone")

def test_fails():
    assert 0
"""


@pytest.mark.parametrize("told", ["all", "some"])
def test_tries_are_one_line_each(site: pytest.Pytester, told: str) -> None:
    (site.path / "test_it.py").write_text(TRIED)
    (site.path / "conftest.py").write_text(TRIES.format(told=told))
    done = site.runpytest_subprocess("--hil-target=echo", "--hil-boot-timeout=50")
    outcomes = done.parseoutcomes()
    assert {name: outcomes.get(name) for name in ("passed", "failed", "rerun", "errors")} == {
        "passed": 2,
        "failed": 1,
        "rerun": 2,
        "errors": None,
    }
    (run,) = (site.path / ".hil" / "runs").iterdir()
    assert [
        (line["nodeid"].partition("::")[2], line["outcome"])
        for line in lines(run / "results.jsonl")
    ] == [
        ("test_has_a_run", "passed"),
        ("test_breaks_once", "rerun"),
        ("test_breaks_once", "passed"),
        ("test_fails", "rerun"),
        ("test_fails", "failed"),
    ]


def test_what_breaks_in_the_call_is_told_of_the_call(site: pytest.Pytester) -> None:
    """And takes nothing with it that was told before."""
    (site.path / "test_it.py").write_text(
        """
from pytest_hil.errors import ChannelLost

def test_breaks(hil):
    raise ChannelLost("the way is gone")

def test_subtests(subtests):
    with subtests.test("one"):
        assert 0, "first"
    with subtests.test("two"):
        raise ChannelLost("the way is gone")
"""
    )
    site.runpytest_subprocess("--hil-target=echo", "--hil-boot-timeout=50")
    (run,) = (site.path / ".hil" / "runs").iterdir()
    found = lines(run / "results.jsonl")
    assert [(line["outcome"], list(line["phases"])) for line in found] == [
        ("error", ["setup", "call", "teardown"])
    ] * 2
    assert found[1]["reason"] == "AssertionError: first"


def all_text(directory: Path) -> str:
    return "".join(path.read_text() for path in directory.rglob("*") if path.is_file())


def test_none_is_written_if_none_is_wanted(site: pytest.Pytester) -> None:
    (site.path / "pytest.ini").write_text("[pytest]\nmarkers = smoke\nhil_report = none\n")
    done = site.runpytest_subprocess("--hil-target=echo", "-k", "bad")
    done.assert_outcomes(failed=1, deselected=5)
    (run,) = (site.path / ".hil" / "runs").iterdir()
    assert {path.name for path in run.iterdir() if path.is_file()} == {"run.json", "results.jsonl"}
    done.stdout.no_fnmatch_line("hil: report*")


def test_a_wrong_word_is_said_first(plain: pytest.Pytester) -> None:
    plain.makeini("[pytest]\nhil_report = pdf\n")
    done = plain.runpytest_inprocess()
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["*hil_report: 'pdf' is not one of html, none*"])


def test_a_run_without_targets_writes_nothing(plain: pytest.Pytester) -> None:
    plain.makepyfile("def test_a(): pass")
    plain.runpytest_subprocess("--hil-target=qemu").assert_outcomes(passed=1)
    assert not list((plain.path / ".hil").rglob("results.jsonl"))


@contextmanager
def unreadable(path: Path) -> Iterator[None]:
    path.chmod(0)
    try:
        yield
    finally:
        path.chmod(0o755)


def test_what_cannot_be_read_is_a_warning(site: pytest.Pytester) -> None:
    command = [*UNPRIVILEGED, sys.executable, "-m", "pytest", "--hil-target=echo", "-k", "smoke"]
    (site.path / "test_it.py").write_text("def test_smoke(hil): pass\n")
    hil = site.path / ".hil"
    for number in range(7):
        (hil / "runs" / f"2000-{number}").mkdir(parents=True)
    with unreadable(hil / "runs" / "2000-1"):
        done = site.run(*command)
    assert done.ret == 0
    done.stdout.fnmatch_lines(
        [
            f"*HilWarning: an old run cannot be removed: Permission denied: {hil}/runs/2000-1",
            "*1 passed, 1 warning*",
        ]
    )
    # Those that can be removed are.
    names = {path.name for path in (hil / "runs").iterdir() if path.name.startswith("2000")}
    assert names == {"2000-1", *(f"2000-{number}" for number in range(3, 7))}
    for directory in (hil, hil / "runs"):
        with unreadable(directory):
            done = site.run(*command)
        assert done.ret == 0
        done.stdout.fnmatch_lines(
            [
                "*HilWarning: the artifacts of this run are incomplete: Permission denied: *",
                "*1 passed, 1 warning*",
            ]
        )


@pytest.mark.machine
def test_workers_and_one_that_dies(inner: Any) -> None:
    inner.write(
        "import os\n"
        "def test_a(hil): pass\n"
        "def test_b(hil): hil.console.tail(1); os._exit(3)\n"
        "def test_c(): pass\n"
        "def test_d(hil): assert 0\n"
    )
    assert inner.run("--hil-target=qemu", "-n2", "--hil-keep=none") == 1, inner.text
    (run,) = (inner.directory / ".hil" / "runs").iterdir()
    found = lines(run / "results.jsonl")
    outcomes = {line["nodeid"].rpartition("::")[2]: line["outcome"] for line in found}
    assert outcomes == {
        "test_a": "passed",
        "test_b": "failed",
        "test_c": "passed",
        "test_d": "failed",
    }
    assert {line["worker"] for line in found} <= {"", "gw0", "gw1", "gw2"}
    page = (run / "report.html").read_text()
    assert "2 failed, 2 passed" in page
