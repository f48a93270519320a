"""What goes wrong with a board, as whole pytest runs: the outcome, the words, and the recovery."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pytest_hil.lab.health import Health
from pytest_hil.lab.health_book import HealthBook
from pytest_hil.rig.rig import Rig
from tests.board.test_runs import Site

# What a run's tests do to their board; a plain test in between has no board.
CONFTEST = """
import os, urllib.parse, urllib.request
import pytest

@pytest.fixture(scope="session")
def fault():
    def do(kind, board="rig1", **options):
        query = urllib.parse.urlencode({"board": board, "kind": kind, **options})
        urllib.request.urlopen(f"{os.environ['RIG_URL']}/fault?{query}").read()
    return do
"""
MENDED = """
def test_mended(fault):
    fault("none")

def test_next(hil):
    assert hil.run("echo well").stdout == "well\\n"
"""


class Clinic(Site):
    """A site whose tests can make its boards ill."""

    def __init__(self, rig: Rig, root: Path) -> None:
        super().__init__(rig, root)
        self.environment["RIG_URL"] = rig.switchboard.url
        (root / "conftest.py").write_text(CONFTEST)
        self.patience(boot=10.0, console=2.0)

    def patience(self, *, boot: float, console: float) -> None:
        """How long a stage may take to be reached, and a console to be gone."""
        text = self.rig.boards_toml.read_text()
        text = re.sub(r"(timeout = [\d.]+, )?user = ", f"timeout = {boot}, user = ", text)
        text = re.sub(
            r"console = \{ (patience = [\d.]+, )?", f"console = {{ patience = {console}, ", text
        )
        self.rig.boards_toml.write_text(text)

    def tests(self, *bodies: str) -> None:
        (self.root / "test_it.py").write_text("\n".join(bodies))

    @property
    def health(self) -> dict[str, Health]:
        return HealthBook(self.lab.directory).look(self.names)

    def earlier(self, board: str, *, ago: float) -> None:
        """It came to quarantine so many seconds ago."""
        book = HealthBook(self.lab.directory, clock=lambda: time.time() - ago)
        for _ in range(3):
            book.failed(board, "smoke")

    def cli(self, *words: str, code: int = 0) -> str:
        import subprocess
        import sys

        done = subprocess.run(
            [sys.executable, "-m", "pytest_hil.cli.main", "lab", "health", *words],
            cwd=self.root,
            env={**self.environment, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def clinic(tmp_path: Path) -> Iterator[Callable[..., Clinic]]:
    rigs = []

    def make(boards: int = 1, **how: object) -> Clinic:
        rigs.append(Rig(boards, **how))  # type: ignore[arg-type]
        return Clinic(rigs[-1], tmp_path)

    yield make
    for rig in rigs:
        rig.close()


def check(site: Clinic, out: str, *, passed: int, errors: int, said: str = "") -> None:
    """How a run ended: nothing of it *failed*, and nothing is left."""
    counts = out.strip().splitlines()[-1]
    assert "failed" not in counts, out
    assert ("error" in counts) == bool(errors), out
    assert not errors or re.search(rf"\b{errors} errors?\b", counts), out
    assert f"{passed} passed" in counts, out
    if said:
        assert re.search(rf"^infrastructure: .*{said}", out, re.MULTILINE), out
    assert site.free() == site.names
    assert site.violations() == []


# Each with what its test does, and what is said of it.
FAULTS = {
    "vanishes": (
        """
    fault("adapter-vanishes", seconds=1000)
    hil.run("true")""",
        # While an answer was waited for, or while something was sent.
        r"the console of rig1 (broke|is gone): the line was lost \(.*\) and did not come back "
        r"within 1 s",
    ),
    "sticks": (
        """
    fault("stuck-relay")
    hil.power.cycle()""",
        r"the power switch of rig1: .* was told Off and says the opposite",
    ),
    "lies": (
        """
    fault("stuck-relay", lies=1)
    hil.power.cycle()""",
        r"the board rig1 did not reach shell: .*; its console is silent",
    ),
    "dies": (
        """
    fault("dead")
    hil.power.cycle()""",
        r"the board rig1 did not reach shell: .*; its console is silent",
    ),
    "loops": (
        """
    fault("boot-loop", seconds=0.002)
    hil.power.cycle()
    hil.run("sleep 1")""",
        # On a busy host somebody may be logged in before it resets.
        r"(the board rig1 did not reach shell: |the board rig1 restarted while a command ran"
        r"|the shell on the console of rig1 does not answer)",
    ),
    "loses": (
        """
    fault("lost-bytes", rate=1)
    hil.power.cycle()""",
        r"the board rig1 did not reach shell: .*; its console is silent",
    ),
}


@pytest.mark.machine
def test_what_a_fault_is(clinic: Callable[..., Clinic]) -> None:
    """An error with the board's name, and the next test has the board as if nothing had been."""
    site = clinic()
    site.patience(boot=2.5, console=1.0)
    bodies = [
        f"def test_{name}(hil, fault):{body}\n"
        + MENDED.replace("_mended", f"_{name}_mended").replace("_next", f"_{name}_next")
        for name, (body, _said) in FAULTS.items()
    ]
    site.tests(*bodies)
    code, out = site.run("-rA", target="rig1")
    assert code == 1
    check(site, out, passed=2 * len(FAULTS), errors=len(FAULTS))
    for name, (_body, said) in FAULTS.items():
        report = out.partition(f"ERROR at call of test_{name} ")[2].partition("\n____")[0]
        assert re.search(f"^infrastructure: {said}", report, re.MULTILINE), (name, out)
    one = site.health["rig1"]
    assert (one.state, one.errors) == ("healthy", 0)
    assert one.last_good >= one.last_error > 0


@pytest.mark.slow
def test_what_is_no_fault(clinic: Callable[..., Clinic]) -> None:
    """An adapter that is back soon, and garbage on the line: the test does not notice."""
    site = clinic()
    site.patience(boot=30.0, console=20.0)
    site.tests(
        """
def test_garbage(hil, fault):
    fault("garbage", count=2000)
    assert hil.run("echo right").stdout == "right\\n"

def test_adapter(hil, fault):
    fault("adapter-vanishes", seconds=0.3)
    assert hil.run("echo right").stdout == "right\\n"
    assert "the console was lost; it is back after" in hil.console.text()
"""
    )
    code, out = site.run(target="rig1")
    assert code == 0, out
    check(site, out, passed=2, errors=0)
    assert site.health["rig1"].last_error == 0


@pytest.mark.slow
def test_a_brown_out_while_a_command_runs(clinic: Callable[..., Clinic]) -> None:
    """The board restarts, and nobody knows what became of the command."""
    site = clinic()
    site.tests(
        'def test_ill(hil, fault):\n    fault("brown-out", seconds=0.5)\n    hil.run("sleep 60")\n',
        MENDED,
    )
    code, out = site.run(target="rig1")
    assert code == 1
    check(site, out, passed=2, errors=1, said="the board rig1 restarted while a command ran")
    assert site.health["rig1"].state == "healthy"


# What a boot loader says, where a light board has none.
BANNER = """
def boots(hil):
    hil.console.sendline("echo 'U-Boot 2024.01 (Jan 08 2024)'; echo 'DRAM:  1 GiB'")
"""


@pytest.mark.machine
def test_a_board_that_restarts_by_itself(clinic: Callable[..., Clinic]) -> None:
    """At once, while the test waits for something else; whose fault it is nobody knows."""
    site = clinic()
    site.tests(
        BANNER,
        "def test_ill(hil):\n    boots(hil)\n    hil.console.expect('never', timeout=100)\n",
        "def test_quiet(hil):\n    boots(hil)\n    hil.console.expect(r'\\nDRAM: .*\\n')\n",
        MENDED,
        "def test_run(hil):\n    boots(hil)\n    hil.run('sleep 100')\n",
    )
    began = time.monotonic()
    code, out = site.run(target="rig1")
    assert time.monotonic() - began < 60
    assert code == 1
    said = r"the board rig1 restarted by itself: U-Boot 2024\.01 \(Jan 08 2024\)"
    check(site, out, passed=2, errors=3, said=said)
    assert len(re.findall(rf"^infrastructure: {said}", out, re.MULTILINE)) == 3, out


@pytest.mark.machine
def test_a_restart_that_is_wanted_or_no_matter(clinic: Callable[..., Clinic]) -> None:
    site = clinic()
    site.tests(
        BANNER,
        """
import pytest

def test_wanted(hil):
    with hil.crashes("unexpected reset: U-Boot") as expected:
        boots(hil)
    assert expected.crashes[0].kind == "reset"
    with pytest.raises(Exception, match="in an unknown state: no shell"):
        hil.run("true")
    hil.boot()
    assert hil.run("echo well").stdout == "well\\n"

@pytest.mark.hil(crash_ignore=["unexpected reset"])
def test_no_matter(hil):
    boots(hil)
    hil.console.expect(r"\\nDRAM: .*\\n")

def test_asked_for(hil):
    hil.reset()
    hil.power.cycle()
    hil.boot("off")
    hil.boot()
    assert hil.run("echo well").stdout == "well\\n"
""",
    )
    code, out = site.run(target="rig1")
    assert code == 0, out
    check(site, out, passed=3, errors=0)


@pytest.mark.machine
def test_a_restart_between_two_tests_harms_nobody(clinic: Callable[..., Clinic]) -> None:
    site = clinic()
    site.tests(
        """
def test_one(hil):
    hil.console.sendline("(sleep 1; echo; echo 'U-Boot 2024.01 (Jan 08 2024)'; echo DRAM) &")

def test_without_a_board():
    import time
    time.sleep(2)
""",
        MENDED,
    )
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert "the board rig1 restarted between two tests" in out


@pytest.mark.slow
def test_a_brown_out_is_seen_by_the_boot_loaders_banner(clinic: Callable[..., Clinic]) -> None:
    """A real U-Boot's, while nothing but the console is waited for; resets of ours are no news."""
    site = clinic(1, kinds=("arm64",))
    site.patience(boot=240.0, console=10.0)
    site.tests(
        "def test_ill(hil, fault):\n"
        "    hil.reset()\n"
        '    fault("brown-out", seconds=0.5)\n'
        '    hil.console.expect("never", timeout=200)\n',
        MENDED,
    )
    code, out = site.run(target="rig1", timeout=500)
    assert code == 1
    check(site, out, passed=2, errors=1, said=r"the board rig1 restarted by itself: U-Boot 20")


@pytest.mark.slow
def test_a_board_that_does_not_reach_its_bootloader(clinic: Callable[..., Clinic]) -> None:
    """The stage that is named is the one that was not reached."""
    site = clinic(1, kinds=("arm64",))
    text = site.rig.boards_toml.read_text()
    stage = 'driver = "u-boot", timeout = 20, env = { hil_note = "here" }'
    site.rig.boards_toml.write_text(re.sub(r'driver = "u-boot"', stage, text))
    site.patience(boot=240.0, console=10.0)
    site.rig.board("rig1").fault("dead")
    site.tests("def test_ill(hil):\n    pass\n", MENDED)
    code, out = site.run(target="rig1", timeout=400)
    assert code == 1
    check(site, out, passed=2, errors=1, said="the board rig1 did not reach bootloader: ")


# --- quarantine ---


@pytest.mark.machine
def test_quarantine_and_back(clinic: Callable[..., Clinic]) -> None:
    site = clinic()
    site.patience(boot=1.0, console=2.0)
    board = site.rig.board("rig1")
    board.fault("dead")
    site.tests(
        "import pytest\n"
        '@pytest.mark.parametrize("n", range(6))\n'
        'def test_it(hil, n):\n    assert hil.run("echo on").stdout == "on\\n"\n'
    )
    began = time.time()
    code, out = site.run(target="rig1")
    assert code == 1
    assert "6 errors" in out.strip().splitlines()[-1]
    # Three were tried in vain, the others were told at once.
    assert len(re.findall("^infrastructure: the board rig1 did not reach shell", out, re.M)) == 3
    told = (
        r"^infrastructure: rig1 is quarantined since [\d:]+: did not reach shell.* "
        r"\(3 times\); next try [\d:]+$"
    )
    assert len(re.findall(told, out, re.M)) == 3
    assert "lab health rig1 --check tries it now" in out
    assert re.search(r"^hil: rig1 is quarantined since .*; pytest-hil lab health rig1$", out, re.M)
    one = site.health["rig1"]
    assert (one.state, one.errors) == ("quarantined", 3)
    assert 290 < one.retry_at - began < 400
    offs = len(board.record.events)

    # The next run does not touch it, and says so before its first test.
    code, out = site.run(target="rig1")
    assert code == 1
    header = out.partition("collected")[0]
    assert "hil: rig1 is quarantined since" in header
    assert len(re.findall(told, out, re.M)) == 6
    assert len(board.record.events) == offs

    # Still dead: in vain, and no sooner than it was.
    site.patience(boot=1.0, console=2.0)
    said = site.cli("rig1", "--check", "--boards", str(site.rig.boards_toml), code=1)
    assert "did not reach shell" in said
    assert site.health["rig1"].errors == 4
    # Mended: on probation, then in use.
    board.fault("none")
    site.patience(boot=30.0, console=2.0)
    said = site.cli("rig1", "--check", "--boards", str(site.rig.boards_toml))
    assert re.search(r"rig1: enter shell, [\d.]+ s", said)
    assert "rig1 is on probation since" in said
    code, out = site.run(target="rig1")
    assert code == 0, out
    assert "6 passed" in out
    assert "quarantined" not in out
    assert site.health["rig1"].state == "healthy"


@pytest.mark.slow
def test_a_pool_without_its_ill_board(clinic: Callable[..., Clinic]) -> None:
    site = clinic(2)
    site.patience(boot=30.0, console=2.0)
    HealthBook(site.lab.directory).quarantine("rig1", "its relay smells")
    site.tests(
        'def test_it(hil):\n    assert hil.name == "rig2"\n', "def test_two(hil):\n    pass\n"
    )
    code, out = site.run()
    assert code == 0, out
    check(site, out, passed=2, errors=0)
    assert re.search(r"hil: rig1 is quarantined since .* by \w+: its relay smells; until", out)
    assert site.rig.board("rig1").record.events == ()
    # All of them: at once, and each with its reason.
    site.earlier("rig2", ago=1.0)
    code, out = site.run()
    assert code == 1
    assert "infrastructure: all boards that fit are quarantined:" in out
    assert "rig2 is quarantined since" in out
    # Its time has come: switched off and on first, and then used.
    HealthBook(site.lab.directory).clear("rig2")
    site.earlier("rig2", ago=1000.0)
    code, out = site.run()
    assert code == 0, out
    events = [one.what for one in site.rig.board("rig2").record.events]
    assert events.count("on") == 2, events
    assert site.health["rig2"].state == "healthy"


@pytest.mark.machine
def test_what_says_nothing_of_a_board(clinic: Callable[..., Clinic]) -> None:
    """Failed assertions and commands, a board that others have, a test's own mistakes."""
    site = clinic(2)
    site.patience(boot=30.0, console=5.0)
    site.tests(
        """
import pytest
def test_assertion(hil):
    assert hil.run("echo 1").stdout == "2\\n"
def test_command(hil):
    hil.run("false")
def test_timeout(hil):
    hil.run("sleep 9", timeout=0.2)
def test_expect(hil):
    hil.console.expect("never", timeout=0.1)
def test_off(hil):
    hil.power.off()
    hil.run("true")
def test_stage(hil):
    hil.boot("bootlaoder")
@pytest.mark.parametrize("n", range(3))
def test_twice(hil, hil_open, n):
    hil_open("rig1")
@pytest.mark.parametrize("n", range(3))
def test_busy(hil, hil_open, n):
    hil_open("rig2")
"""
    )
    with site.lab.acquire(["rig2"], purpose="soldering"):
        code, out = site.run(target="rig1")
    assert code == 1
    assert "6 failed" in out.strip().splitlines()[-1], out
    assert "6 errors" in out.strip().splitlines()[-1]
    assert {one.state for one in site.health.values()} == {"healthy"}
    assert [one.last_error for one in site.health.values()] == [0, 0]


# --- an adapter that the board itself powers ---


@pytest.mark.machine
def test_an_adapter_that_has_its_power_from_the_board(clinic: Callable[..., Clinic]) -> None:
    """It is not there when the run begins, and is gone for longer than a console may be."""
    site = clinic(1, serial="pty")
    site.patience(boot=40.0, console=2.0)
    site.rig.board("rig1").power_adapter()
    site.tests(
        """
import time
def test_it(hil):
    assert hil.run("echo on").stdout == "on\\n"
    hil.power.off()
    time.sleep(2.5)  # longer than its patience
    hil.power.on()
    assert hil.run("echo again").stdout == "again\\n"
"""
    )
    code, out = site.run(target="rig1")
    assert code == 0, out
    check(site, out, passed=1, errors=0)
    assert site.health["rig1"].last_error == 0
    (log,) = site.root.glob(".hil/runs/*/*/console.log")
    assert b"[pytest-hil: the console is there after" in log.read_bytes()
    moves = [
        json.loads(line).get("move")
        for line in (log.parent / "events.jsonl").read_text().splitlines()
    ]
    assert moves.count("off") == 1, moves


@pytest.mark.slow
def test_an_adapter_that_never_comes(clinic: Callable[..., Clinic]) -> None:
    site = clinic(1, serial="pty")
    site.patience(boot=40.0, console=1.0)
    site.rig.board("rig1").power_adapter()
    site.rig.board("rig1").fault("stuck-relay", lies=1)
    site.tests("def test_it(hil):\n    pass\n")
    code, out = site.run(target="rig1")
    assert code == 1
    assert re.search(
        r"^infrastructure: the console of rig1 broke: it did not appear within 1 s; the last try: "
        r"there is no serial port .*console\.tty",
        out,
        re.MULTILINE,
    ), out
    assert site.free() == site.names
