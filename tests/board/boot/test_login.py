"""The boot stage ``login``: whether a board is there already."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from pytest_hil.board.boot.login import _SILENCE, Login, LoginOptions
from pytest_hil.board.boot.stage import Way
from pytest_hil.board.console.open import open_console
from pytest_hil.config import load
from pytest_hil.config.board import BoardTarget
from pytest_hil.config.driver import Secret
from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.errors import ExpectTimeout
from pytest_hil.rig.board import PASSWORD, PASSWORD_VARIABLE
from pytest_hil.rig.rig import Rig


@pytest.fixture
def console() -> Iterator[Console]:
    """That of a board which shows its login prompt, opened after it did so."""
    with Rig() as rig:
        rig.board(1).power(True)
        target = load(rig.boards_toml, root=rig.directory).targets["rig1"]
        assert isinstance(target, BoardTarget)
        with open_console(target.console, name="rig1") as console:
            yield console


def test_a_login_prompt_is_no_shell(console: Console) -> None:
    """And nothing is typed into it, which would be somebody's name."""
    assert not Login(LoginOptions()).here(Way(console, 30))
    assert "Password" not in console.text()
    assert console.tail(1) == "rig1 login: "


def test_who_was_found_at_its_login_prompt_is_logged_in_without_waiting_for_another(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    login = Login(LoginOptions(password=Secret("env", PASSWORD_VARIABLE)))
    console.send("\r")
    console.expect("login: ")
    with contextlib.suppress(ExpectTimeout):
        # It may have begun to ask only now, and do so again.
        console.expect("login: ", timeout=1)
    assert not login.here(Way(console, 30))
    # Shorter than the silence after which it would ask by itself.
    login.enter(Way(console, _SILENCE * 0.8))
    assert login.here(Way(console, 30))


def test_a_shell_is_found_whatever_stands_on_its_line(console: Console) -> None:
    console.send("root\r")
    console.expect("Password: ")
    console.send(f"{PASSWORD}\r")
    console.expect("# ")
    login = Login(LoginOptions())
    assert login.here(Way(console, 30))
    console.send("false; rm -rf /nowhe")
    console.expect("nowhe")
    assert login.here(Way(console, 30))
    assert "not found" not in console.text()
    console.send("sleep 1234\r")
    assert login.here(Way(console, 30))


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize("mode", ["emacs", "vi"])
def test_nothing_of_what_stands_on_bashs_line_is_run(mode: str) -> None:
    """An escape is a command in vi's mode: where the cursor is then, ^U leaves the rest."""
    ours, theirs = socket.socketpair()
    bash = f"import pty; pty.spawn(['bash', '--norc', '-o', {mode!r}, '-i'])"
    environment = {**os.environ, "PS1": "$ ", "TERM": "dumb"}
    with (
        Console(SocketTransport(ours), name="bash") as console,
        theirs,
        subprocess.Popen(
            [sys.executable, "-c", bash],
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
            env=environment,
        ) as shell,
    ):
        try:
            console.expect(r"\$ \Z")
            console.send("false; rm -rf /nowhe")
            console.expect("nowhe")
            assert Login(LoginOptions()).here(Way(console, 30))
            assert "not found" not in console.text()
        finally:
            shell.kill()
