"""The boot stage ``uefi``: EDK II's shell, as the distribution packages it for QEMU."""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.board.board import Board
from pytest_hil.errors import CommandFailed

FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")

pytestmark = [
    pytest.mark.machine,
    pytest.mark.slow,
    pytest.mark.skipif(not FIRMWARE.exists(), reason="apt-get install ovmf"),
]

BOARDS = """
[target.pc]
backend = "board"
arch = "x86_64"
console = {{driver = "unix", path = "{home}/serial"}}
power = {{driver = "qmp", socket = "{home}/qmp", off_seconds = 0}}
boot = [{{driver = "uefi", timeout = 120, env = {{colour = "deep blue"}}}}]
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A short path: a socket's is at most 107 bytes long."""
    with tempfile.TemporaryDirectory(prefix="hil-uefi-") as found:
        yield Path(found)


@pytest.fixture
def board(home: Path) -> Iterator[Board]:
    (home / "boards.toml").write_text(BOARDS.format(home=home))
    argv = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg", "-m", "128M", "-bios", str(FIRMWARE)),
        *("-serial", f"unix:{home}/serial,server=on,wait=off", "-S", "-no-shutdown"),
        *("-qmp", "stdio", "-qmp", f"unix:{home}/qmp,server=on,wait=off"),
    ]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe) as qemu, contextlib.ExitStack() as opened:
        opened.callback(qemu.kill)
        assert qemu.stdout is not None
        assert b"QMP" in qemu.stdout.readline()  # its sockets are there
        bench = opened.enter_context(Bench(Settings(root=home, lab=home / "lab")))
        target = bench.open(bench.describe("pc"))
        assert isinstance(target, Board)
        opened.callback(target.close)
        yield target


def test_the_shell(board: Board) -> None:
    board.boot("uefi")
    assert board.stage == "uefi"
    shell = board.bootloader
    assert "UEFI Interactive Shell" in shell.run("ver").stdout
    assert shell.run("echo one two").stdout == "one two\n"
    with pytest.raises(CommandFailed, match="not recognized") as caught:
        shell.run("nosuchcommand")
    assert caught.value.exit_code == 14
    assert shell.env["colour"] == "deep blue"
    assert "color" not in shell.env
    shell.env["colour"] = "red"
    assert shell.env["colour"] == "red"
    # Off, and through the wait for startup.nsh once more; its variables were in memory.
    board.power.cycle()
    assert board.stage == "uefi"
    assert board.bootloader.env["colour"] == "deep blue"
    assert board.console.text().count("in 5 seconds to skip") == 2
