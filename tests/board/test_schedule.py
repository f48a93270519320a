"""Whole runs under xdist: each worker has a board, and none waits for another's."""

from __future__ import annotations

import re
import signal
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.rig.rig import Rig
from tests.board.test_runs import Site

NUMBERED = """
import os, pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it(hil, number):
    assert hil.run(f"echo {{number}}").stdout == f"{{number}}\\n"
"""

# Every third test wants what only one of the boards has.
MIXED = """
import os, pytest

@pytest.mark.parametrize("number", [
    pytest.param(number, marks=pytest.mark.hil(features=["usb3"] if number % 3 == 0 else []))
    for number in range({tests})
])
def test_it(hil, number):
    assert hil.run(f"echo {{number}}").stdout == f"{{number}}\\n"
    assert number % 3 or hil.name == "rig2"
"""


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(boards=3) as rig:
        # Boards of a rig are alike; this one has something that the others have not.
        text = rig.boards_toml.read_text()
        head, name, tail = text.partition("[target.rig2]")
        rig.boards_toml.write_text(head + name + tail.replace('["rig"]', '["rig", "usb3"]', 1))
        yield rig


@pytest.fixture
def site(rig: Rig, tmp_path: Path) -> Iterator[Site]:
    found = Site(rig, tmp_path)
    yield found
    assert found.free() == found.names
    assert found.violations() == []


def taken(site: Site) -> list[str]:
    """The boards in the order in which somebody got them, once for each time."""
    return [one.board for one in site.lab.history(10_000) if one.what == "taken"]


def outcomes(site: Site, report: str) -> dict[str, str]:
    """What became of each test. Fails if one has more than one outcome."""
    found: dict[str, str] = {}
    for case in ET.parse(site.root / report).getroot().iter("testcase"):
        name = str(case.get("name"))
        assert name not in found, "it has two outcomes"
        kinds = [child.tag for child in case if child.tag not in ("properties", "system-out")]
        found[name] = kinds[0] if kinds else "passed"
    return found


def test_each_board_stays_with_one_worker_and_the_others_end(site: Site) -> None:
    (site.root / "test_it.py").write_text(MIXED.format(tests=24))
    (site.root / "test_host.py").write_text("def test_of_nothing():\n    pass\n")
    code, out = site.run("-n", "4", "-v", target="rig1 or rig2")
    assert code == 0, out
    assert "25 passed" in out
    assert "scheduling tests via BoardScheduling" in out
    assert "hil: 1 of 4 workers has no board: the tests need rig1 or rig2" in out
    assert sorted(taken(site)) == ["rig1", "rig2"], "nobody had to give one away"
    # Who has the scarce board, and who has none, are three workers.
    workers = dict(re.findall(r"\[(gw\d)\] \[ *\d+%\] PASSED (\S+)", out))
    assert len(workers) == 3
    assert sum("test_host" in test for test in workers.values()) == 1


def test_workers_that_are_killed(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        MIXED.format(tests=18)
        + """
    if number in (3, 7):
        os.kill(os.getpid(), 9)
    if number == 10 and not os.path.exists("once"):
        open("once", "w").close()
        os.kill(os.getpid(), 9)
"""
    )
    # As plugins do it that run again what has crashed.
    (site.root / "conftest.py").write_text(
        """
def pytest_handlecrashitem(crashitem, report, sched):
    if "[10]" in crashitem:
        sched.mark_test_pending(crashitem)
        report.outcome = "rerun"
"""
    )
    code, out = site.run("-n", "2", target="rig1 or rig2")
    assert code == 1, out
    assert "2 failed, 16 passed, 1 rerun" in out, out
    assert "crashed while running 'test_it.py::test_it[3]'" in out
    assert len(set(re.findall(r"^PASSED (\S+)", out, re.MULTILINE))) == 16


def test_strict(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        """
import pytest

@pytest.fixture(autouse=True)
def before():
    pass

@pytest.mark.hil(features=["usb3"])
def test_usb(hil):
    pass

@pytest.mark.hil(features=["laser"])
@pytest.mark.parametrize("power", [1, 2])
def test_laser(hil, power):
    raise RuntimeError

@pytest.mark.hil(target=["rig3"])
def test_only_there(hil):
    raise RuntimeError

@pytest.mark.hil(features=["laser"])
@pytest.mark.skip(reason="not today")
def test_skipped(hil):
    raise RuntimeError
"""
    )
    code, out = site.run(
        "--junitxml=report.xml", "--hil-strict", "--hil-target=rig2", target="rig1"
    )
    assert code == 1, out
    assert "1 passed, 3 skipped, 5 failed" in out or "5 failed, 1 passed, 3 skipped" in out, out
    assert "the target rig1 lacks the feature laser" in out
    assert "only for the target rig3; chosen: rig1, rig2" in out
    assert outcomes(site, "report.xml")["test_laser[rig1-1]"] == "failure"
    assert outcomes(site, "report.xml")["test_usb[rig1]"] == "skipped", "it runs on rig2"
    (site.root / "pytest.ini").write_text("[pytest]\nhil_strict = true\n")
    code, out = site.run(target="rig1 or rig2")
    assert "3 failed, 1 passed, 1 skipped" in out, out


def test_a_board_that_is_not_needed_any_more_is_for_others(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        """
import pathlib, time

def wait_for(name):
    end = time.monotonic() + 60
    while not pathlib.Path(name).exists():
        assert time.monotonic() < end
        time.sleep(0.01)

def test_board(hil):
    pass

def test_of_the_host():
    wait_for("queued")

def test_that_takes_long():
    wait_for("got")
"""
    )
    run = site.start(target="rig1")
    while site.lab.status(["rig1"])[0].holder is None:
        assert run.poll() is None
        time.sleep(0.01)

    def say() -> None:
        while not site.lab.queue():
            time.sleep(0.01)
        (site.root / "queued").touch()

    queued = threading.Thread(target=say, daemon=True)
    queued.start()
    with site.lab.acquire(["rig1"], purpose="soldering", wait=60):
        assert run.poll() is None, "it goes on"
        (site.root / "got").touch()
        out, _ = run.communicate(timeout=60)
    queued.join()
    assert "3 passed" in out, out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "scheduler"),
    [
        (("--dist=load", "--maxschedchunk=1"), "BoardScheduling"),
        (("--dist=loadfile",), "LoadFileScheduling"),
        (("--hil-target=rig2",), "BoardScheduling"),
        (("--hil-scope=session",), "BoardScheduling"),
    ],
)
def test_whatever_is_chosen_beside(site: Site, words: tuple[str, ...], scheduler: str) -> None:
    (site.root / "test_it.py").write_text(NUMBERED.format(tests=12))
    (site.root / "test_too.py").write_text(NUMBERED.format(tests=12))
    code, out = site.run("-n", "3", "-v", *words, target="rig1")
    assert code == 0, out
    assert f"scheduling tests via {scheduler}" in out
    assert "48 passed" in out if "--hil-target=rig2" in words else "24 passed" in out


@pytest.mark.slow
@pytest.mark.parametrize("without", ["-p no:xdist", "-n 2 --dist=no", "-n 1"])
def test_without_anybody_to_send_tests_to(site: Site, without: str) -> None:
    (site.root / "test_it.py").write_text(MIXED.format(tests=6))
    code, out = site.run(*without.split())
    assert code == 0, out
    assert "6 passed" in out


@pytest.mark.slow
def test_the_end_comes_early(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        NUMBERED.format(tests=40) + "    assert number != 5 or os.path.exists('mended')\n"
    )
    cache = ("-p", "cacheprovider")
    code, out = site.run("-n", "2", "-x", *cache)
    assert code == 2, out
    assert "stopping after 1 failures" in out
    (site.root / "mended").touch()
    code, out = site.run("-n", "3", "--lf", *cache)
    assert code == 0, out
    assert "1 passed" in out
    code, out = site.run("-n", "2", "-k", "nothing")
    assert code == 5, out


@pytest.mark.slow
def test_workers_that_collect_something_else(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        NUMBERED.format(tests="4 + (os.environ['PYTEST_XDIST_WORKER'] == 'gw1')")
    )
    code, out = site.run("-n", "2")
    assert code == 1, out
    # Whoever came first is named first, and its tests are run.
    first = re.search("Different tests were collected between gw([01]) and gw[01]", out)
    assert first, out
    assert f"{4 + int(first[1])} passed, 1 error" in out


@pytest.mark.slow
def test_workers_that_die_wherever_they_are(site: Site) -> None:
    """Before their first test, between two, and after the last."""
    (site.root / "test_it.py").write_text(NUMBERED.format(tests=20))
    (site.root / "conftest.py").write_text(
        """
import os, pytest

def die(once):
    try:
        open(once, "x").close()
    except FileExistsError:
        return
    os.kill(os.getpid(), 9)

@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item):
    if "[7]" in item.nodeid:
        die("before")

def pytest_collection_finish(session):
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw1":
        die("collected")

def pytest_runtest_logfinish(nodeid):
    if "[11]" in nodeid and "PYTEST_XDIST_WORKER" in os.environ:
        die("after")
"""
    )
    code, out = site.run("-n", "2")
    # No test was running when its worker died: the 7th had not begun, and all of the 11th was
    # reported. Each has one outcome, and it is said of each worker that it died.
    assert code == 0, out
    assert "20 passed" in out
    assert "failed" not in out
    assert out.count("node down") == 3
    died = re.findall(r"worker gw\d died while it ran no test \(Not properly terminated\)", out)
    assert len(set(died)) == 3, out


@pytest.mark.slow
def test_a_worker_that_dies_between_two_tries_of_a_test(site: Site) -> None:
    """Not all of that test was reported, although the tear-down of its first try was."""
    (site.root / "test_it.py").write_text(NUMBERED.format(tests=4))
    (site.root / "conftest.py").write_text("""
import os
from _pytest.runner import runtestprotocol

def pytest_runtest_protocol(item, nextitem):
    if "[2]" not in item.nodeid:
        return None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in runtestprotocol(item, nextitem=nextitem, log=False):
        if report.when == "call":
            report.outcome = "rerun"
        item.ihook.pytest_runtest_logreport(report=report)
    os.kill(os.getpid(), 9)
""")
    code, out = site.run("-n", "2")
    assert code == 1, out
    assert "3 passed" in out
    assert re.search(r"worker 'gw\d' crashed while running 'test_it.py::test_\S*\[2\]'", out), out


@pytest.mark.slow
def test_what_a_killed_run_leaves_is_removed_by_the_next(site: Site, tmp_path: Path) -> None:
    site.environment["TMPDIR"] = str(tmp_path / "tmp")
    (tmp_path / "tmp").mkdir()
    (site.root / "test_it.py").write_text(NUMBERED.format(tests=4))
    (site.root / "conftest.py").write_text("""
import os, signal

def pytest_runtest_teardown(item):
    if "[1]" in item.nodeid and not os.path.exists("killed"):
        open("killed", "x").close()
        os.kill(os.getppid(), signal.SIGKILL)
""")
    assert site.run("-n", "2")[0] == -signal.SIGKILL
    assert list((tmp_path / "tmp").glob("*/*/schedule-*"))
    code, out = site.run("-n", "2")
    assert code == 0, out
    assert not list((tmp_path / "tmp").glob("*/*/schedule-*"))


@pytest.mark.machine
def test_some_on_machines_and_some_on_boards(site: Site) -> None:
    (site.root / "test_it.py").write_text(NUMBERED.format(tests=6))
    code, out = site.run("-n", "3", "-v", "--hil-target=qemu", target="rig1 or rig2", timeout=300)
    assert code == 0, out
    assert "12 passed" in out
    assert sorted(taken(site)) == ["rig1", "rig2"]
    ran = re.findall(r"\[(gw\d)\] \[ *\d+%\] PASSED \S+(qemu|rig1 or rig2)-", out)
    boards = {worker for worker, target in ran if target != "qemu"}
    machines = {worker for worker, target in ran if target == "qemu"}
    assert len(boards) == 2
    assert machines - boards, "who has no board has machines"
