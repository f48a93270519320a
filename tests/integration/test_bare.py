"""Machines with no agent: a console and power, and a clear word about the rest."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import BootTimeout, Unsupported
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine

# The firmware of the how-to: says a line on its UART, then sends back what it gets.
SOURCES = Path(__file__).parents[2] / "docs" / "examples" / "howto" / "bare_metal"


@pytest.fixture(scope="module")
def bench_of_bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    root = tmp_path_factory.mktemp("bare")
    fw = root / "fw.elf"
    zig = [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi"]
    subprocess.run(
        [*zig, "-mcpu=cortex_m3", "-nostdlib", "-T", "layout.ld", "firmware.s", "-o", fw],
        cwd=SOURCES,
        check=True,
    )
    (root / "boards.toml").write_text(
        """
        [target.m3]
        backend = "qemu"
        arch = "arm"
        machine = "mps2-an385"
        kernel = "fw.elf"
        agent = false
        ready = "firmware is up"

        [target.silent]
        backend = "qemu"
        arch = "arm"
        machine = "mps2-an385"
        kernel = "fw.elf"
        agent = false
        ready = "never said"
        """
    )
    with Bench(Settings(root=root, boot_timeout=2)) as made:
        yield made


@pytest.fixture
def board(bench_of_bare: Bench) -> Iterator[Guest]:
    made = bench_of_bare.open(bench_of_bare.target("m3"))
    yield made
    made.close()


def test_it_talks_on_its_console(board: Guest) -> None:
    assert "firmware is up" in board.console.text()
    board.console.send("abc\n")
    assert board.console.expect("abc\n", timeout=10)


def test_it_says_what_it_has_not(board: Guest) -> None:
    assert "shell" not in board.features
    with pytest.raises(Unsupported, match="the target m3 has no shell to run a command"):
        board.run("true")
    with pytest.raises(Unsupported, match="m3 has no snapshot"):
        board.snapshot()


def test_power_and_reset(board: Guest) -> None:
    mark = board.console.mark()
    board.reset()
    assert "firmware is up" in board.console.since(mark)
    board.power.off()
    assert not board.power.read()
    board.power.on()
    board.console.send("xyz\n")
    board.console.expect("xyz\n", timeout=10)


def test_one_that_never_gets_ready_is_said(bench_of_bare: Bench) -> None:
    with pytest.raises(BootTimeout, match=r"(?s)never said.*firmware is up"):
        bench_of_bare.open(bench_of_bare.target("silent"))
