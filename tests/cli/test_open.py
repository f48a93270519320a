"""``pytest-hil open``: kept machines, as their tests left them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect  # type: ignore[import-untyped]
import pytest

from pytest_hil.artifacts.store import Run
from pytest_hil.cli.open import differences

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Terminal

ABOUT: dict[str, Any] = {
    "target": "qemu",
    "overrides": {},
    "boards": None,
    "kernel": None,
    "kernel_modules": None,
}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with a file and a line on its console that no other machine has."""
    from pytest_hil.bench import Bench, Settings

    root = tmp_path_factory.mktemp("kept")
    with Bench(Settings(root=root)) as bench:
        guest = bench.open(bench.target("qemu"))
        guest.run("echo as it failed > /root/state; echo on the console > /dev/console")
        guest.console.expect("on the console")
        (root / "machine").mkdir()
        guest.save(root / "machine")
    return root / "machine"


@pytest.fixture(scope="module")
def panicked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state that answers no more."""
    from pytest_hil.bench import Bench, Settings
    from pytest_hil.errors import Crashed

    root = tmp_path_factory.mktemp("panicked")
    with Bench(Settings(root=root)) as bench:
        guest = bench.open(bench.target("qemu"))
        with pytest.raises(Crashed):
            guest.run("echo c > /proc/sysrq-trigger; sleep 100")
        (root / "machine").mkdir()
        guest.save(root / "machine")
    return root / "machine"


def failed(run: Run, nodeid: str, machine: Path | None = None, **about: Any) -> None:
    test = run.test(nodeid, "qemu")
    if machine is None:
        test.finish("failed", duration=1.0)
        return
    shutil.copytree(machine, test.path / "machine")
    facts = {**ABOUT, "root": str(run.path.parents[2]), **about}
    test.finish("failed", duration=1.0, machine=facts)


@pytest.fixture
def run(cli: Cli) -> Run:
    return Run.create(cli.cwd / ".hil", argv=["pytest"], targets=["qemu"])


def test_nothing_is_kept(cli: Cli, run: Run) -> None:
    failed(run, "test_a.py::test_x")
    assert "--hil-keep=failed" in cli.error("open")
    error = cli.error("open", "test_x")
    assert "the machine of test_a.py::test_x (failed) was not kept" in error
    assert "--hil-keep=failed" in error
    assert "did you mean 'test_a.py::test_x'?" in cli.error("open", "test_a.py::test_xx")
    assert "there is no run '1999'" in cli.error("open", "test_x", "--run", "1999")
    shutil.rmtree(cli.cwd / ".hil")
    assert "there is no .hil here nor above" in cli.error("open", "test_x")


def test_one_that_could_not_be_kept(cli: Cli, run: Run) -> None:
    run.test("test_a.py::test_x", "qemu").finish("failed", not_kept="it had died")
    failed(run, "test_a.py::test_y")
    assert "no machine was kept: it had died\n" in cli.error("open")
    error = cli.error("open", "test_x")
    assert "the machine of test_a.py::test_x (failed) was not kept: it had died\n" in error
    assert "--hil-keep" not in error
    assert "was not kept\n  pytest --hil-keep=failed" in cli.error("open", "test_y")


def test_a_run_that_was_killed_while_it_kept_a_machine(cli: Cli, run: Run) -> None:
    test = run.test("test_a.py::test_x", "qemu")
    test.finish("failed")
    (test.path / "machine").mkdir()
    assert "does not say what the kept machine is" in cli.error("open", "test_x", code=1)
    run.test("test_a.py::test_y", "qemu").finish("failed", machine=ABOUT)
    (run.path / "test_a.py--test_y@qemu" / "machine").mkdir()
    error = cli.error("open", "test_y", code=1)
    assert "holds no saved machine" in error


def test_several_are_listed(cli: Cli, run: Run) -> None:
    for name in "xy":
        failed(run, f"test_a.py::test_{name}")
        (run.path / f"test_a.py--test_{name}@qemu" / "machine").mkdir()
    error = cli.error("open", "test_a")
    assert "2 kept machines are of tests with 'test_a'" in error
    assert "    test_a.py--test_x@qemu\n    test_a.py--test_y@qemu\n" in error


@pytest.mark.parametrize(
    ("kept", "today", "said"),
    [
        (["q", "-m", "256M"], ["q", "-m", "512M"], ["it was -m 256M, it is 512M"]),
        (["q", "-m", "1"], ["/x/q", "-m", "1"], ["it was QEMU q, it is /x/q"]),
        (["q", "-device", "a"], ["q"], ["it had -device a"]),
        (["q", "-S"], ["q", "-S", "-smp", "2"], ["it has now -smp 2"]),
        (["q", "-S", "-s"], ["q", "-s", "-S"], ["the order of its devices"]),
        (["q", "-a", "1"], ["q", "-b", "1"], ["it had -a 1", "it has now -b 1"]),
    ],
)
def test_what_differs_is_said(kept: list[str], today: list[str], said: list[str]) -> None:
    assert differences(kept, today) == said


@pytest.mark.machine
def test_commands_run_in_the_kept_state_which_stays_as_it_is(
    cli: Cli, run: Run, kept: Path
) -> None:
    failed(run, "test_a.py::test_x", kept)
    failed(run, "test_a.py::test_y")
    for _ in range(2):
        # Neither the guest's memory nor anything else of it remembers the first time.
        done = cli(
            "open", "test_x", "--run-command", "cat /root/state; rm /root/state; exit 3", code=3
        )
        assert done.stdout == "as it failed\n"
    done = cli("open", "--run-command", "sleep 60", "--timeout", "0.3", code=124)
    assert "did not end within 0.3 s" in done.stderr
    done = cli("open", "--shell", input="cd /root\ncat state\nfalse\n", code=1)
    assert done.stdout.endswith("as it failed\n")


@pytest.mark.machine
def test_a_person_sees_what_the_console_said(
    cli: Cli, run: Run, kept: Path, terminal: Terminal
) -> None:
    failed(run, "test_a.py::test_x", kept)
    with terminal("open", "test_x") as screen:
        screen.expect_exact("test_a.py::test_x, as it failed")
        screen.expect("on the console")
        screen.send("cat /root/sta??\r")
        screen.expect("as it failed")
        screen.sendcontrol("]")
        screen.expect(pexpect.EOF)
    assert screen.exitstatus == 0


@pytest.mark.machine
@pytest.mark.machine
def test_one_that_panicked_says_so(cli: Cli, run: Run, panicked: Path) -> None:
    failed(run, "test_a.py::test_x", panicked)
    said = cli("open", "--run-command", "true", code=125).stderr
    assert "the machine qemu does not answer: it was kept after its kernel had panicked" in said


def test_another_machine_than_then(cli: Cli, run: Run, kept: Path) -> None:
    boards = cli.cwd / "other.toml"
    boards.write_text('[target.qemu]\nbackend = "qemu"\nmemory = "128M"\n')
    failed(run, "test_a.py::test_x", kept, boards=str(boards))
    error = cli.error("open", "test_x", code=1)
    assert "cannot be opened any more" in error
    assert "it was -m 256M, it is 128M" in error
    # The overrides of then are those of now.
    failed(run, "test_a.py::test_y", kept, boards=str(boards), overrides={"memory": "256M"})
    assert cli("open", "test_y", "--run-command", "cat /root/state").stdout == "as it failed\n"


@pytest.mark.machine
def test_a_damaged_state(cli: Cli, run: Run, kept: Path) -> None:
    failed(run, "test_a.py::test_x", kept)
    machine = run.path / "test_a.py--test_x@qemu" / "machine"
    with (machine / "memory").open("r+b") as memory:
        memory.truncate(2**20)
    assert "is incomplete" in cli.error("open", "test_x", "--run-command", "true", code=1)
