"""Running commands: each test has a Linux machine of its own."""

from __future__ import annotations

import pytest

from pytest_hil import CommandFailed, CommandTimeout, Target


def test_a_command(hil: Target) -> None:
    assert hil.run("uname -s").stdout == "Linux\n"


def test_a_program_with_arguments(hil: Target) -> None:
    # A list is no shell line: nothing in it is special.
    assert hil.run(["echo", "$HOME", "a  b"]).stdout == "$HOME a  b\n"


def test_input_and_environment(hil: Target) -> None:
    done = hil.run("cat; echo $WHO", input="hello ", env={"WHO": "world"})
    assert done.stdout == "hello world\n"


def test_a_command_that_fails(hil: Target) -> None:
    with pytest.raises(CommandFailed) as failed:
        hil.run("echo broken >&2; exit 3")
    assert failed.value.exit_code == 3
    assert failed.value.stderr == "broken\n"

    # Or look at it yourself:
    assert hil.run("exit 3", check=False).exit_code == 3


def test_a_command_that_never_ends(hil: Target) -> None:
    with pytest.raises(CommandTimeout):
        hil.run("sleep 1000", timeout=0.5)
    # It was killed, with all that it had started.
    assert hil.run("pidof sleep", check=False).exit_code == 1
