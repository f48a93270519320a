"""``pytest-hil vm`` on real machines."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect  # type: ignore[import-untyped]
import pytest

from pytest_hil import process

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Terminal


def started(cli: Cli, *arguments: str) -> str:
    return cli("vm", "start", *arguments).stdout.strip()


def facts(cli: Cli, name: str) -> dict[str, Any]:
    return next(row for row in cli.json("vm", "list") if row["name"] == name)


def left(runtime_dir: Path) -> list[str]:
    """What is in the runtime directory, but for its locks."""
    found = (path for path in runtime_dir.rglob("*") if path.name not in ("lock", ".lock"))
    return [
        str(path) for path in found if path not in (runtime_dir / "vm", runtime_dir / "machines")
    ]


def test_nothing_is_started(cli: Cli) -> None:
    assert "no machines" in cli("vm", "list").stdout
    assert cli.json("vm", "list") == []
    assert "there is no machine 'x'" in cli.error("vm", "run", "x", "--", "true")
    assert "give names, or --all" in cli.error("vm", "stop")


def test_wrong_things_are_said_before_anything_starts(cli: Cli, runtime_dir: Path) -> None:
    assert "did you mean 'qemu'?" in cli.error("vm", "start", "qmeu")
    much = cli.error("vm", "start", "--memory", "much")
    assert much.startswith("pytest-hil: the command line: memory: 'much' is not a size")
    for time in ("0", "-1", "nan", "soon"):
        assert "is no time: write seconds" in cli.error("vm", "start", "--boot-timeout", time)
        assert "is no time" in cli.error("vm", "run", "--timeout", time, "x", "--", "true")
        assert "is no time" in cli.error("open", "--timeout", time)
    assert "cannot be a name" in cli.error("vm", "start", "--name", "a/b")
    assert "no such file" in cli.error("vm", "start", "--boards", "none.toml")
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_a_life(cli: Cli, tmp_path: Path, runtime_dir: Path) -> None:
    name = started(cli, "--forward", "22", "--name", "mine")
    assert name == "mine"
    row = facts(cli, name)
    assert (row["state"], row["target"], row["kind"]) == ("ready", "qemu", "vm")
    assert row["forwards"][0]["guest"] == 22
    assert 0 < row["forwards"][0]["host"] < 65536
    assert stat.S_IMODE((runtime_dir / "vm" / name).stat().st_mode) == 0o700
    assert "there is a machine 'mine' already" in cli.error("vm", "start", "--name", "mine")

    done = cli("vm", "run", name, "--", "echo out; echo err >&2; exit 7", code=7)
    assert (done.stdout, done.stderr) == ("out\n", "err\n")
    assert cli("vm", "run", name, "--", "echo", "a  b", "$HOME").stdout == "a  b $HOME\n"
    assert cli("vm", "run", name, "--", "cat", input="given\n").stdout == "given\n"
    assert cli("vm", "run", "-n", name, "--", "cat", input="given\n").stdout == ""
    cli("vm", "run", name, "--", "kill -9 $$", code=128 + 9)
    late = cli("vm", "run", "--timeout", "0.3", name, "--", "sleep 60", code=124)
    assert "did not end within 0.3 s" in late.stderr
    assert "run()" not in late.stderr
    assert "which command?" in cli.error("vm", "run", name, "--")

    (cli.cwd / "file").write_bytes(os.urandom(100_000))
    cli("vm", "put", name, "file", "/tmp/there")
    cli("vm", "get", name, "/tmp/there", "back")
    assert (cli.cwd / "back").read_bytes() == (cli.cwd / "file").read_bytes()
    assert "nowhere" in cli.error("vm", "get", name, "/nowhere", "x", code=1)

    assert cli("vm", "stop", name).stdout == "stopped mine\n"
    assert process.start_time(row["qemu"]) is None
    assert process.start_time(row["server"]) is None
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_a_person_at_the_console(cli: Cli, terminal: Terminal) -> None:
    name = started(cli)
    with terminal("vm", "console", name) as screen:
        screen.expect("the console of qemu-1; Ctrl-] leaves it")
        screen.expect("pytest-hil: ready")
        screen.send("echo $((6*7))-is-it\r")
        screen.expect("42-is-it")
        screen.sendcontrol("]")
        screen.expect("left the console")
        screen.expect(pexpect.EOF)
    assert screen.exitstatus == 0
    assert facts(cli, name)["state"] == "ready"


@pytest.mark.machine
def test_two_at_one_console(cli: Cli, terminal: Terminal) -> None:
    name = started(cli)
    with terminal("console", name) as one, terminal("console", name) as other:
        for screen in (one, other):
            screen.expect("leaves it")
        one.send("echo $((6*7))-for-both\r")
        for screen in (one, other):
            screen.expect("42-for-both")


@pytest.mark.machine
def test_output_comes_as_it_is_said_and_an_interrupt_ends_the_command(cli: Cli) -> None:
    name = started(cli)
    running = cli.start(
        ["vm", "run", name, "--", "echo now; exec sleep 4242"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"now\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(20) == 130
    cli("vm", "run", "--timeout", "20", name, "--", "while pgrep -f 'sleep 424[2]'; do :; done")


@pytest.mark.machine
def test_a_machine_that_dies_is_remembered(cli: Cli, runtime_dir: Path, terminal: Terminal) -> None:
    name = started(cli)
    row = facts(cli, name)
    with terminal("vm", "console", name) as screen:
        screen.expect("leaves it")
        os.kill(row["qemu"], signal.SIGKILL)
        screen.expect("the console has ended")
        screen.expect("QEMU ended with signal SIGKILL")
        screen.expect(pexpect.EOF)
    assert screen.exitstatus == 1
    assert process.wait_for_pid(row["server"], 20)
    after = facts(cli, name)
    assert after["state"] == "died"
    assert "SIGKILL" in after["why"]
    assert "pytest-hil: ready" in after["console"]
    assert "died" in cli.error("vm", "run", name, "--", "true", code=1)
    assert "died" in cli.error("vm", "console", name, code=1)
    cli("vm", "stop", name)
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_a_machine_that_switches_itself_off(cli: Cli, terminal: Terminal) -> None:
    name = started(cli)
    server = facts(cli, name)["server"]
    with terminal("vm", "console", name) as screen:
        screen.expect("leaves it")
        screen.send("poweroff -f\r")
        screen.expect("was switched off")
    assert process.wait_for_pid(server, 20)
    assert facts(cli, name)["why"] == "it was switched off"


@pytest.mark.machine
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_the_servers_end_is_the_machines_end(
    cli: Cli, runtime_dir: Path, number: signal.Signals
) -> None:
    name = started(cli)
    row = facts(cli, name)
    os.kill(row["server"], number)
    assert process.wait_for_pid(row["server"], 20)
    assert process.wait_for_pid(row["qemu"], 20)
    rows = cli.json("vm", "list")
    if number == signal.SIGKILL:
        assert (rows[0]["state"], rows[0]["qemu"]) == ("died", None)
        assert "was killed" in rows[0]["why"]
        cli("clean")
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_a_server_that_does_not_obey_is_killed(cli: Cli, runtime_dir: Path) -> None:
    name = started(cli)
    row = facts(cli, name)
    os.kill(row["server"], signal.SIGSTOP)
    cli("vm", "stop", name)
    assert process.wait_for_pid(row["qemu"], 20)
    cli("clean")
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_a_machine_that_does_not_boot(cli: Cli, runtime_dir: Path) -> None:
    error = cli.error("vm", "start", "--append", "rdinit=/nothing init=/nothing", code=1)
    assert "did not boot: Kernel panic" in error
    assert left(runtime_dir) == []


@pytest.mark.machine
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_who_goes_away_while_it_boots_leaves_nothing(
    cli: Cli, runtime_dir: Path, number: signal.Signals
) -> None:
    # Nobody has a template of that: it boots.
    waiting = cli.start(
        ["vm", "start", "--append", f"who={os.getpid()}-{number}"],
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
    )
    with waiting:
        assert waiting.stderr is not None
        assert any(b"booting" in line for line in waiting.stderr)
        (row,) = (one for one in cli.json("vm", "list") if one["kind"] == "vm")
        assert row["state"] == "starting"
        assert "is not ready yet" in cli.error("vm", "run", row["name"], "true", code=1)
        waiting.send_signal(number)
        waiting.wait(30)
    assert process.wait_for_pid(row["server"], 30)
    assert cli.json("vm", "list") == []
    cli("clean")
    assert left(runtime_dir) == []


@pytest.mark.machine
def test_the_machines_of_test_runs_are_listed(cli: Cli) -> None:
    from pytest_hil.bench import Bench, Settings

    with Bench(Settings(root=cli.cwd)) as bench:
        guest = bench.open(bench.target("qemu"))
        (row,) = cli.json("vm", "list")
        assert row["kind"] == "test run"
        assert row["owner"] == os.getpid()
        assert row["qemu"] == guest.machine.process.pid
        assert f"of a test run (process {os.getpid()})" in cli("vm", "list").stdout


@pytest.mark.machine
def test_a_fresh_target_at_the_console(cli: Cli, runtime_dir: Path, terminal: Terminal) -> None:
    with terminal("console") as screen:
        screen.expect("the console of qemu; Ctrl-] leaves it")
        screen.send("echo $((6*7))-is-it\r")
        screen.expect("42-is-it")
        screen.sendcontrol("]")
        screen.expect(pexpect.EOF)
    assert screen.exitstatus == 0
    assert left(runtime_dir) == []
    assert "did you mean 'qemu'?" in cli.error("console", "qmeu")
