"""Power by commands: real shells."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.board.power.command import CommandOptions, CommandPower
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError


def reading(command: str) -> CommandPower:
    return CommandPower(CommandOptions("true", "true", command))


def test_on_off_and_read(tmp_path: Path) -> None:
    state = tmp_path / "it's the state"
    quoted = f'"{state}"'
    power = CommandPower(
        CommandOptions(f"echo on >{quoted}", f"echo off >{quoted}", f"cat {quoted}")
    )
    power.on()
    assert state.read_text() == "on\n"
    assert power.read() is True
    power.off()
    assert state.read_text() == "off\n"
    assert power.read() is False
    power.close()
    power.close()


@pytest.mark.parametrize(
    ("command", "state"),
    [
        ("exit 0", True),
        ("exit 1", False),
        ("echo on", True),
        ("echo OFF", False),  # though its exit code is 0
        ("echo off; exit 1", False),
        ("echo the relay is closed", True),
        ("echo 'off with it'; exit 1", False),
        ("echo off >&2", True),  # only its output counts
    ],
)
def test_what_is_on(command: str, state: bool) -> None:
    assert reading(command).read() is state


@pytest.mark.parametrize(
    ("command", "how"),
    [
        ("echo on; exit 1", "said on and off at once"),
        ("echo on; echo no such outlet >&2; exit 2", "exit code 2; it said: no such outlet"),
        ("kill -9 $$", "SIGKILL and said nothing"),
        ("hil-no-such-program", "exit code 127; it said: .*hil-no-such-program"),
    ],
)
def test_neither_on_nor_off(command: str, how: str) -> None:
    with pytest.raises(PowerError, match=how) as caught:
        reading(command).read()
    assert command in caught.value.message


def test_without_a_command_to_read() -> None:
    power = CommandPower(CommandOptions("true", "true"))
    assert power.read() is None
    Switch(power).on()


def test_the_error_has_the_commands_words() -> None:
    power = CommandPower(CommandOptions("echo so far; echo '\033[31mno route' >&2; exit 3", "true"))
    with pytest.raises(PowerError, match="ended with exit code 3; it said: ") as caught:
        power.on()
    assert "no route\nso far" in caught.value.message
    assert "\033" not in str(caught.value)
    power.off()


def test_it_is_tried_again(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    power = CommandPower(CommandOptions(f"echo >>{tries}; [ $(wc -l <{tries}) = 3 ]", "true"))
    Switch(power, SwitchOptions(retries=2), sleep=lambda _seconds: None).on()
    assert tries.read_text() == "\n" * 3


@pytest.mark.parametrize("command", ["exec sleep 60", "sleep 60; true"])
def test_a_command_that_hangs(command: str) -> None:
    power = CommandPower(CommandOptions(f"echo connecting; {command}", "true", timeout=0.3))
    began = time.monotonic()
    with pytest.raises(PowerError, match=r"did not end within 0.3 s; it said: connecting") as e:
        power.on()
    assert time.monotonic() - began < 10
    assert "timeout" in e.value.mend


def test_what_was_given_up_switches_nothing_later(tmp_path: Path) -> None:
    """The shell's children end with it, also one that does not care for SIGTERM."""
    pids = tmp_path / "pids"
    stubborn = f"trap '' TERM; echo $$ >>{pids}; sleep 60"
    command = f'sleep 60 & echo $! >>{pids}; sh -c "{stubborn}"; true'.replace("$$", r"\$\$")
    with pytest.raises(PowerError, match=r"did not end within 0.3 s"):
        CommandPower(CommandOptions(command, "true", timeout=0.3)).on()
    found = [int(pid) for pid in pids.read_text().split()]
    assert len(found) == 2
    for pid in found:
        assert process.wait_for_pid(pid, 5)


def test_what_is_left_running_on_purpose(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    CommandPower(CommandOptions(f"sleep 60 >/dev/null 2>&1 & echo $! >{pid}", "true")).on()
    number = int(pid.read_text())
    started = process.start_time(number)
    assert started is not None
    process.kill_pid(number, started=started)


def test_a_command_gets_no_input() -> None:
    CommandPower(CommandOptions("! read line", "true")).on()


def test_shell_lines() -> None:
    section = Section(
        "boards.toml", "[t.power]", "command", {"on": "if true\nthen exit 0\nfi", "off": "exit 1"}
    )
    power = CommandPower(section.options(CommandOptions))
    power.on()
    with pytest.raises(PowerError, match="exit code 1"):
        power.off()


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"on": "true"}, "off: missing"),
        ({"on": " ", "off": "true"}, "no command in it"),
        ({"on": "true", "off": ["true"]}, "wanted a string"),
        ({"on": "true", "off": "true", "timeout": "1 s"}, "number of seconds"),
    ],
)
def test_wrong_keys(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "command", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(CommandOptions)
