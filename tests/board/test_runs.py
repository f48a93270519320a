"""Whole pytest runs on emulated boards: consoles, a power switch's protocol, logins, all real."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.lab.lease import DIRECTORY, Lab
from pytest_hil.rig.rig import Rig

COUNT = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it(hil, number):
    assert hil.run(f"echo {{number}}").stdout == f"{{number}}\\n"
"""


class Site:
    """A rig, a directory with tests, and a lab of its own."""

    def __init__(self, rig: Rig, root: Path) -> None:
        self.rig = rig
        self.root = root
        self.lab = Lab(root / "lab")
        self.environment = {
            **os.environ,
            **rig.environment,
            DIRECTORY: str(self.lab.directory),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *words: str, target: str = "rig") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA"),
                # At the end of each run, it looks through all modules for a second.
                *("-p", "no:hypothesispytest", "-p", "no:html", "-p", "no:metadata"),
                *("-p", "no:allure_pytest"),
                *(f"--hil-boards={self.rig.boards_toml}", f"--hil-target={target}", *words),
            ],
            cwd=self.root,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, target: str = "rig", timeout: float = 120.0) -> tuple[int, str]:
        process = self.start(*words, target=target)
        out, _ = process.communicate(timeout=timeout)
        return process.returncode, out

    def free(self) -> list[str]:
        return [one.board for one in self.lab.status(self.names) if one.holder is None]

    @property
    def names(self) -> list[str]:
        return [board.name for board in self.rig.boards]

    def violations(self) -> list[object]:
        """What the boards themselves have seen: two who had one's console at once."""
        return [one for board in self.rig.boards for one in board.record.violations]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with Rig(boards=4) as rig:
        yield Site(rig, tmp_path)


def test_a_board_whose_owner_calls_something_usb(site: Site) -> None:
    """Nothing can be attached to it: it has no events of that."""
    boards = site.root / "boards.toml"
    text = site.rig.boards_toml.read_text()
    assert 'features = ["rig"]' in text
    boards.write_text(text.replace('features = ["rig"]', 'features = ["rig", "usb"]'))
    (site.root / "test_it.py").write_text(COUNT.format(tests=1))
    words = (f"--hil-boards={boards}", f"--hil-usb-log={site.root / 'log'}")
    code, out = site.run(*words, target="rig1")
    assert code == 0, out


def test_a_board_is_a_target(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        COUNT.format(tests=3)
        + """
@pytest.mark.hardware
def test_power(hil):
    hil.run("touch /tmp/mark")
    hil.power.cycle()
    assert hil.power.read()
    assert not hil.run("test -e /tmp/mark", check=False).ok
    assert hil.stage == "shell"

@pytest.mark.hil(memory="1G")
def test_memory(hil):
    pass

@pytest.mark.hil(features=["laser"])
def test_laser(hil):
    pass
"""
    )
    code, out = site.run(target="rig2")
    assert code == 0, out
    assert "4 passed, 2 skipped" in out
    assert "hil: rig2 (board, x86_64), console by tcp, power by tasmota, login" in out
    assert "the target rig2 is a board: memory cannot be chosen" in out
    assert "the target rig2 lacks the feature laser" in out
    logs = list(site.root.glob(".hil/runs/*/*/console.log"))
    assert len(logs) == 4
    lines = [(log.parent / "events.jsonl").read_text().splitlines() for log in logs]
    events = [json.loads(line) for each in lines for line in each]
    assert [one["move"] for one in events if one["kind"] == "boot"].count("off") == 1
    assert site.free() == site.names
    assert site.violations() == []


def test_a_pool_under_xdist(site: Site) -> None:
    (site.root / "test_it.py").write_text(COUNT.format(tests=40))
    code, out = site.run("-n", "4")
    assert code == 0, out
    assert "40 passed" in out
    used = [one for one in site.lab.history(1000) if one.what == "taken"]
    assert {one.board for one in used} == set(site.names)
    assert site.free() == site.names
    assert site.violations() == []


def test_more_workers_than_boards_take_turns(site: Site) -> None:
    (site.root / "test_it.py").write_text(COUNT.format(tests=30))
    code, out = site.run("-n", "4", target="rig1 or rig2")
    assert code == 0, out
    assert "30 passed" in out
    assert site.violations() == []


def test_somebody_else_has_it(site: Site) -> None:
    (site.root / "test_it.py").write_text(COUNT.format(tests=1))
    with site.lab.acquire(["rig1"], purpose="soldering"):
        code, out = site.run(target="rig1")
        assert code == 1
        assert "1 error" in out
        assert "rig1 is not free" in out
        assert "(soldering)" in out
        waiting = site.start("--hil-wait=30", target="rig1")
        while not site.lab.queue():
            assert waiting.poll() is None
            time.sleep(0.01)
    out, _ = waiting.communicate(timeout=60)
    assert "1 passed" in out


def test_who_gives_way_gets_its_turn(site: Site) -> None:
    """A run that would not wait for a board at all gives one to who waits, and gets it back."""
    (site.root / "test_it.py").write_text(COUNT.format(tests=4))
    (site.root / "conftest.py").write_text("""
import os, time

def pytest_runtest_teardown(item):
    if "[0]" in item.nodeid and os.environ.get("FIRST"):
        open("begun", "x").close()
        while not os.path.exists("queued"):
            time.sleep(0.01)
""")
    site.environment["FIRST"] = "1"
    first = site.start(target="rig1")
    while not (site.root / "begun").exists():
        assert first.poll() is None
        time.sleep(0.01)
    del site.environment["FIRST"]
    second = site.start("--hil-wait=30", target="rig1")
    while not site.lab.queue():
        assert second.poll() is None
        time.sleep(0.01)
    (site.root / "queued").touch()
    for run in (first, second):
        out, _ = run.communicate(timeout=60)
        assert run.returncode == 0, out
        assert "4 passed" in out
    assert site.violations() == []


def test_a_registry_that_breaks_at_the_end(site: Site) -> None:
    """The tests have their outcomes, and what is wrong is said in a line."""
    (site.root / "test_it.py").write_text(COUNT.format(tests=1))
    (site.root / "conftest.py").write_text("""
import os, pathlib

def pytest_sessionfinish():
    pathlib.Path(os.environ["PYTEST_HIL_LAB"], "registry.sqlite").write_bytes(b"junk" * 2000)
""")
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert "1 passed" in out
    assert re.search(r"\nhil: at the end of the run: the lab's registry .* is damaged", out), out
    assert "Traceback" not in out
    for path in site.lab.directory.glob("registry.sqlite*"):
        path.unlink()
    assert site.free() == site.names


def test_two_workers_that_want_each_others_boards(site: Site) -> None:
    """One of them is told at once; then the other one gets what it waits for."""
    (site.root / "test_it.py").write_text("""
import pytest, time
from pathlib import Path

@pytest.mark.parametrize("number", range(2))
def test_it(hil, hil_open, number):
    Path(f"has{number}").touch()
    while not all(Path(f"has{n}").exists() for n in range(2)):
        time.sleep(0.01)
    hil_open("rig2" if hil.name == "rig1" else "rig1").run("true")
""")
    code, out = site.run("-n", "2", target="rig1 or rig2", timeout=60)
    assert code == 1
    assert "1 passed, 1 error" in out, out
    assert re.search(r"infrastructure: rig\d would never come free", out), out
    assert site.free() == site.names


def test_a_run_that_is_killed_blocks_nothing(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        "def test_it(hil):\n    hil.run('echo on', timeout=60)\n    hil.run('sleep 60')\n"
    )
    first = site.start(target="rig1")
    while site.lab.status(["rig1"])[0].holder is None:
        assert first.poll() is None
        time.sleep(0.01)
    time.sleep(0.5)  # in the middle of what it does, wherever that is
    first.send_signal(signal.SIGKILL)
    began = time.monotonic()
    with site.lab.acquire(["rig1"], purpose="next", wait=20):
        assert time.monotonic() - began < 1
    first.communicate()
    # The script of the killed run is still at the console: the next run gets its shell back.
    (site.root / "test_it.py").write_text(COUNT.format(tests=2))
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert site.violations() == []


def test_a_run_with_workers_that_is_killed_blocks_nothing(site: Site) -> None:
    """Its workers notice, end their tests, and give the boards back."""
    (site.root / "test_it.py").write_text(
        """
import pathlib, time, pytest

@pytest.fixture
def note(request):
    yield
    pathlib.Path(f"over{request.node.name[-2]}").touch()

@pytest.mark.parametrize("n", range(2))
def test_it(hil, note, n):
    pathlib.Path(f"ready{n}").touch()
    if n:
        time.sleep(60)
    hil.run("sleep 60", timeout=100)
"""
    )
    first = site.start("-n2", target="rig1 or rig2")
    while not all((site.root / f"ready{number}").exists() for number in range(2)):
        assert first.poll() is None
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    began = time.monotonic()
    for board in ("rig1", "rig2"):
        with site.lab.acquire([board], purpose="next", wait=20):
            # Without a word of ours execnet ends a worker's test after five seconds.
            assert time.monotonic() - began < 3
    first.communicate()
    assert (site.root / "over0").exists()
    assert (site.root / "over1").exists()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("dead", "did not reach shell"),
        ("stuck-relay", "was told On and says the opposite"),
    ],
)
def test_what_breaks_is_an_error_and_no_failure(site: Site, fault: str, said: str) -> None:
    (site.root / "test_it.py").write_text("def test_it(hil):\n    hil.power.cycle()\n")
    text = site.rig.boards_toml.read_text()
    quick = text.replace('driver = "login", user', 'driver = "login", timeout = 3, user')
    site.rig.boards_toml.write_text(quick)
    site.rig.board("rig1").fault(fault)
    code, out = site.run(target="rig1")
    assert code == 1
    assert said in out
    assert "1 error" in out
    assert " failed" not in out.splitlines()[-1]
    assert site.free() == site.names


def test_a_board_of_several_that_breaks_is_given_up(site: Site) -> None:
    (site.root / "test_it.py").write_text(COUNT.format(tests=6))
    text = site.rig.boards_toml.read_text()
    quick = text.replace('driver = "login", user', 'driver = "login", timeout = 3, user')
    site.rig.boards_toml.write_text(quick)
    site.rig.board("rig1").fault("dead")
    code, out = site.run("-s")
    assert code == 0, out
    assert "6 passed" in out
    assert "the board rig1 is given up: the board rig1 did not reach shell" in out
    for board in site.rig.boards:
        board.fault("dead")
    code, out = site.run("-x")
    assert code == 1
    assert "did not reach shell" in out
    assert site.free() == site.names


def test_a_password_that_is_nowhere_is_said_before_the_first_test(site: Site) -> None:
    (site.root / "test_it.py").write_text(COUNT.format(tests=1))
    del site.environment["HIL_RIG_PASSWORD"]
    code, out = site.run(target="rig1")
    assert code == 4, out
    assert "[target.rig1.boot[0]] password: $HIL_RIG_PASSWORD is not set" in out
    assert "export HIL_RIG_PASSWORD=…" in out
    assert site.lab.history(10) == []


def test_the_manuals_examples(site: Site) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples" / "howto" / "test_boards.py"
    (site.root / "test_boards.py").write_text(examples.read_text())
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert "1 passed, 1 skipped" in out
    assert "the target rig1 lacks the feature u-boot" in out


@pytest.mark.machine
def test_the_manuals_examples_with_a_bootloader(tmp_path: Path) -> None:
    examples = Path(__file__).parents[2] / "docs" / "examples"
    for name in ("howto/test_boards.py", "tutorial/test_board.py"):
        (tmp_path / Path(name).name).write_text((examples / name).read_text())
    with Rig(boards=1, kinds=("arm64",)) as rig:
        code, out = Site(rig, tmp_path).run(target="rig1", timeout=300)
    assert code == 0, out
    assert "5 passed" in out


NEEDS = ((), (), (), ("usb3",), ("can",), ("usb3", "can"), ("laser",))
MIXED = f"""
import pytest
NEEDS = {NEEDS}

@pytest.mark.parametrize("number", [
    pytest.param(number, marks=pytest.mark.hil(features=list(NEEDS[number % {len(NEEDS)}])))
    for number in range({{tests}})
])
def test_it(hil, number):
    assert hil.run(f"echo {{{{number}}}}").stdout == f"{{{{number}}}}\\n"
"""


class Killer(threading.Thread):
    """Kills who has a board now and then, with -9 and wherever it is, so often for this run.

    Not those that have none yet: pytest-xdist ends with an internal error when a worker dies while
    it starts.
    """

    def __init__(
        self, lab: Lab, boards: list[str], run: subprocess.Popen[str], kills: int, seed: float
    ) -> None:
        super().__init__(daemon=True)
        self.kills = 0
        self._lab = lab
        self._boards = boards
        self._run = run
        self._wanted = kills
        self._chance = random.Random(seed)
        self.start()

    def run(self) -> None:
        while self.kills < self._wanted and self._run.poll() is None:
            time.sleep(self._chance.uniform(0.1, 1.5))
            holders = [one.holder for one in self._lab.status(self._boards) if one.holder]
            mine = sorted({one.pid for one in holders if _parent(one.pid) == self._run.pid})
            if mine:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(mine), signal.SIGKILL)
                    self.kills += 1


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@pytest.mark.slow
def test_mixed_requirements_and_death_everywhere(tmp_path: Path) -> None:
    """Two runs at once on eight boards, workers that die anywhere, and a run that is killed."""
    tests, kills = 400, 8
    seed = int(os.environ.get("HIL_SEED") or random.randrange(2**32))
    sys.stdout.write(f"again the same: HIL_SEED={seed}\n")
    chance = random.Random(seed)
    (tmp_path / "test_it.py").write_text(MIXED.format(tests=tests))
    with Rig(boards=8) as rig:
        text = rig.boards_toml.read_text()
        for number, features in ((1, '"usb3"'), (2, '"can"'), (3, '"usb3", "can"')):
            head, name, tail = text.partition(f"[target.rig{number}]")
            text = head + name + tail.replace('["rig"]', f'["rig", {features}]', 1)
        rig.boards_toml.write_text(text)
        site = Site(rig, tmp_path)
        doomed = site.start("-n", "4")
        runs = [site.start("-n", str(workers), f"--junitxml={workers}.xml") for workers in (4, 8)]
        killers = [Killer(site.lab, site.names, run, kills, chance.random()) for run in runs]
        time.sleep(chance.uniform(2, 10))
        doomed.send_signal(signal.SIGKILL)
        doomed.communicate()
        for run, killer, workers in zip(runs, killers, (4, 8), strict=True):
            out, _ = run.communicate(timeout=500)
            killer.join()
            assert killer.kills == kills, out[-3000:]
            outcomes = _outcomes(tmp_path / f"{workers}.xml")
            assert set(outcomes) == {f"test_it[{number}]" for number in range(tests)}, out[-3000:]
            died = [name for name, outcome in outcomes.items() if outcome == "error"]
            assert len(died) <= kills, "their workers died: no fault of theirs"
            for number in range(tests):
                name = f"test_it[{number}]"
                expected = "skipped" if "laser" in NEEDS[number % len(NEEDS)] else "passed"
                assert outcomes[name] == expected or name in died, (name, outcomes[name])
        assert site.free() == site.names
        assert site.violations() == []


def _outcomes(junit: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    for case in ET.parse(junit).getroot().iter("testcase"):
        kinds = [child.tag for child in case if child.tag not in ("properties", "system-out")]
        assert case.get("name") not in found, "a test ran twice"
        found[str(case.get("name"))] = kinds[0] if kinds else "passed"
    return found


def test_a_crash_of_a_board_ends_the_command_that_runs(site: Site) -> None:
    (site.root / "test_it.py").write_text(
        """
REPORT = '''[   77.000001] ------------[ cut here ]------------
[   77.000002] WARNING: CPU: 0 PID: 77 at drivers/foo/bar.c:12 bar_open+0x12/0x40 [foo]
[   77.000003] Modules linked in: foo(O)
[   77.000004] Call trace:
[   77.000005]  bar_open+0x12/0x40 [foo]
[   77.000006]  el0t_64_sync+0x18c/0x190
[   77.000007] ---[ end trace 0000000000000000 ]---'''

def test_it(hil):
    # The script that runs it has the console.
    hil.run(f"sleep 1; echo '{REPORT}' > /proc/$PPID/fd/1; sleep 300", timeout=None)
def test_the_next(hil):
    assert hil.run("echo well").stdout == "well\\n"
"""
    )
    code, out = site.run(target="rig1")
    assert code == 1
    assert "\ncrash: WARNING in bar_open [foo]\n\nThe test was here:\n" in out
    assert "1 failed, 1 passed" in out
    assert site.violations() == []
