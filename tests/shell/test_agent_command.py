"""Commands, through the real agent."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.errors import (
    CommandFailed,
    CommandTimeout,
    OutcomeUnknown,
    OutputTooLarge,
)
from pytest_hil.process import Process
from pytest_hil.shell import agent_command as module
from pytest_hil.shell.agent import AgentShell


def gone(pid_file: Path) -> bool:
    """Whether the process that wrote its pid there ends within a few seconds."""
    return process.wait_for_pid(int(pid_file.read_text()), 5)


class TestRun:
    def test_a_line(self, shell: AgentShell) -> None:
        done = shell.run("echo out; echo err >&2; exit 3", check=False)
        assert (done.stdout, done.stderr, done.exit_code) == ("out\n", "err\n", 3)
        assert done.command == "echo out; echo err >&2; exit 3"
        assert not done.ok
        assert 0 < done.duration < 10

    def test_an_argv_is_not_expanded(self, shell: AgentShell) -> None:
        done = shell.run(["echo", "$HOME", "*", "a  b", "ü"])
        assert done.stdout == "$HOME * a  b ü\n"
        assert done.command == "echo '$HOME' '*' 'a  b' 'ü'"

    def test_failing_is_an_error_that_shows_what_it_said(self, shell: AgentShell) -> None:
        with pytest.raises(CommandFailed) as failed:
            shell.run("echo why >&2; exit 4")
        assert failed.value.exit_code == 4
        assert failed.value.stderr == "why\n"

    def test_a_signal_is_negative(self, shell: AgentShell) -> None:
        assert shell.run("kill -TERM $$", check=False).exit_code == -signal.SIGTERM

    def test_signals_are_as_a_program_expects_them(self, shell: AgentShell) -> None:
        status = shell.run("cat /proc/self/status").stdout
        masks = dict(line.split(":\t") for line in status.splitlines() if line.startswith("Sig"))
        assert int(masks["SigBlk"], 16) == 0
        assert int(masks["SigIgn"], 16) == 0

    def test_no_descriptor_leaks_into_it(self, shell: AgentShell) -> None:
        assert shell.run("ls /proc/self/fd", cwd="/").stdout.split() == ["0", "1", "2", "3"]

    def test_session_and_group_are_its_own(self, shell: AgentShell) -> None:
        pid, _name, _state, _parent, group, session = shell.run(
            ["cat", "/proc/self/stat"]
        ).stdout.split()[:6]
        assert pid == group == session

    def test_environment_and_directory(self, shell: AgentShell, tmp_path: Path) -> None:
        command = ["sh", "-c", "echo $A:$B:$HOME; pwd"]
        done = shell.run(command, env={"A": "1", "B": "", "HOME": "/x"}, cwd=str(tmp_path))
        assert done.stdout == f"1::/x\n{tmp_path}\n"
        assert shell.run("pwd").stdout == "/\n"

    def test_a_missing_directory(self, shell: AgentShell) -> None:
        done = shell.run("true", cwd="/no/such", check=False)
        assert done.exit_code == 126
        assert done.stderr == "cannot change to /no/such: No such file or directory\n"

    def test_a_missing_program(self, shell: AgentShell) -> None:
        done = shell.run(["no-such-program", "x"], check=False)
        assert done.exit_code == 127
        assert done.stderr == "no-such-program: No such file or directory\n"

    def test_a_program_that_may_not_be_run(self, shell: AgentShell) -> None:
        assert shell.run(["/etc/passwd"], check=False).exit_code == 126

    def test_output_that_is_no_utf8(self, shell: AgentShell) -> None:
        assert shell.run("printf 'a\\377b'").stdout == "a\ufffdb"

    def test_a_command_that_is_too_long(self, shell: AgentShell) -> None:
        with pytest.raises(ValueError, match="put\\(\\) a script"):
            shell.run("x" * 70_000)
        assert shell.run("echo " + "x" * 60_000).stdout == "x" * 60_000 + "\n"


class TestInput:
    def test_large(self, shell: AgentShell) -> None:
        text = "0123456789abcdef" * 300_000
        assert shell.run("cat", input=text).stdout == text

    def test_bytes(self, shell: AgentShell) -> None:
        assert shell.run("wc -c", input=b"\0\xff\n").stdout.strip() == "3"

    def test_empty_is_an_end(self, shell: AgentShell) -> None:
        assert shell.run("cat", input="").stdout == ""

    def test_none_is_dev_null(self, shell: AgentShell) -> None:
        assert shell.run("cat").stdout == ""

    def test_that_nobody_reads(self, shell: AgentShell) -> None:
        assert shell.run("exit 0", input=bytes(5_000_000)).ok

    def test_that_is_read_in_part(self, shell: AgentShell) -> None:
        assert shell.run("head -c 3", input=b"abc" * 1_000_000).stdout == "abc"


class TestOutput:
    def test_large_on_both(self, shell: AgentShell) -> None:
        done = shell.run("yes 1 | head -c 3000000; yes 2 | head -c 3000000 >&2")
        assert done.stdout == "1\n" * 1_500_000
        assert done.stderr == "2\n" * 1_500_000

    def test_too_large_is_killed(self, shell: AgentShell, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        with pytest.raises(OutputTooLarge) as large:
            shell.run(f"echo $$ >{pid}; exec yes", max_output=1_000_000)
        assert large.value.limit == 1_000_000
        assert gone(pid)
        assert shell.run("echo on").stdout == "on\n"

    def test_just_not_too_large(self, shell: AgentShell) -> None:
        assert len(shell.run("yes | head -c 500000", max_output=500_000).stdout) == 500_000

    def test_children_in_the_background_are_not_waited_for(
        self, shell: AgentShell, tmp_path: Path
    ) -> None:
        pid = tmp_path / "pid"
        done = shell.run(f"(echo early; sleep 1000) & echo $! >{pid}; sleep 0.05; echo now")
        assert sorted(done.stdout.split()) == ["early", "now"]
        assert done.duration < 5
        child = int(pid.read_text())
        assert process.start_time(child) is not None
        os.kill(child, signal.SIGKILL)

    def test_children_that_print_without_end_do_not_hold_it(
        self, shell: AgentShell, tmp_path: Path
    ) -> None:
        pid = tmp_path / "pid"
        flood = "while :; do echo again; done"
        assert shell.run(f"({flood}) & echo $! >{pid}; sleep 0.05").duration < 5
        assert gone(pid)

    def test_all_that_a_command_printed_comes_before_its_end(self, shell: AgentShell) -> None:
        for _ in range(20):
            assert len(shell.run("head -c 65536 /dev/zero").stdout) == 65536


class TestTimeout:
    def test_kills_the_whole_group(self, shell: AgentShell, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        with pytest.raises(CommandTimeout) as late:
            shell.run(f"echo so far; sh -c 'echo $$ >{pid}; exec sleep 1000'; true", timeout=0.3)
        assert late.value.stdout == "so far\n"
        assert late.value.timeout == 0.3
        assert gone(pid)

    def test_with_a_flood_of_output(self, shell: AgentShell) -> None:
        with pytest.raises(CommandTimeout):
            shell.run("yes", timeout=0.02, max_output=2**30)

    def test_none_is_for_ever(self, shell: AgentShell) -> None:
        assert shell.run("sleep 0.1", timeout=None).ok

    def test_of_an_agent_that_does_not_keep_it(
        self, shell: AgentShell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The host's own deadline: it cancels, the agent confirms."""
        monkeypatch.setattr(module, "_KILL_GRACE", -0.9)
        with pytest.raises(CommandTimeout):
            shell.run("sleep 1000", timeout=1)

    def test_of_a_frozen_guest_is_an_unknown_outcome(
        self, agent: Process, shell: AgentShell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "_KILL_GRACE", 0.1)
        monkeypatch.setattr(module, "_CANCEL_GRACE", 0.1)
        os.kill(agent.pid, signal.SIGSTOP)
        with pytest.raises(OutcomeUnknown, match="does not say that it killed it"):
            shell.run("sleep 1000", timeout=0.1)
        os.kill(agent.pid, signal.SIGCONT)
        assert shell.run("echo thawed").stdout == "thawed\n"


class TestAtOnce:
    def test_many_commands(self, shell: AgentShell) -> None:
        def one(number: int) -> str:
            return shell.run(f"read x; echo {number} $x; sleep 0.01", input=f"{number}\n").stdout

        with ThreadPoolExecutor(40) as pool:
            results = list(pool.map(one, range(200)))
        assert results == [f"{number} {number}\n" for number in range(200)]

    def test_floods_do_not_hold_up_others(self, shell: AgentShell) -> None:
        with ThreadPoolExecutor(8) as pool:
            floods = [pool.submit(shell.run, "yes", max_output=2**25) for _ in range(4)]
            quick = shell.run("echo quick").duration
            for flood in floods:
                with pytest.raises(OutputTooLarge):
                    flood.result()
        assert quick < 0.5


def test_an_interrupt_kills_the_command(shell: AgentShell, tmp_path: Path) -> None:
    pid = tmp_path / "pid"

    def interrupt() -> None:
        while not pid.exists() or not pid.read_text():
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        shell.run(f"echo $$ >{pid}; sleep 1000; true")
    assert gone(pid)
    assert shell.run("echo on").stdout == "on\n"
