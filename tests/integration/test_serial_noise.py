"""A serial shell on a console that the kernel writes to all the time: an emulated arm64 board."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.rig.rig import Rig
from pytest_hil.target import Target

pytestmark = [pytest.mark.machine, pytest.mark.slow]

# Into the kernel's log every 5 ms, and from there to the console. The shell's own read does the
# waiting: a process for each message would leave the board no time for anything else.
NOISE = """
echo on > /proc/sys/kernel/printk_devkmsg
echo 8 > /proc/sys/kernel/printk
mkfifo /tmp/never
exec < /dev/null > /dev/null 2>&1 3> /dev/kmsg 4<> /tmp/never
while read -t 0.003 x <&4; [ $? != 0 ]; do echo "<4>noise $((n += 1))" >&3; done &
echo $! > /tmp/noise
"""
# All 500, a minute or two of two free cores, with HIL_ENDURANCE=1.
COMMANDS = 500 if os.environ.get("HIL_ENDURANCE") else 200
MESSAGE = re.compile(r"\[ *(\d+\.\d{6})\] noise (\d+)\n")


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Target]:
    with pytest.MonkeyPatch.context() as patch, Rig(boards=1, kinds=("arm64",)) as rig:
        for name, value in rig.environment.items():
            patch.setenv(name, value)
        (tmp_path / "boards.toml").write_text(rig.boards_toml.read_text())
        with Bench(Settings(root=tmp_path, lab=tmp_path / "lab")) as bench:
            target = bench.open(bench.describe("rig1"))
            yield target
            target.close()


def test_commands_amidst_kernel_messages(board: Target) -> None:
    board.run(NOISE)
    board.console.expect("noise 10")
    begin = board.console.mark()
    wrong = []
    for number in range(COMMANDS):
        text = f"{number}." + "x" * (number % 97)
        done = board.run(f"echo {text}; echo {number} >&2; exit {number % 7}", check=False)
        if (done.stdout, done.stderr, done.exit_code) != (f"{text}\n", f"{number}\n", number % 7):
            wrong.append((number, done))
    assert wrong == []
    said = board.console.since(begin)
    times = [float(time) for time, _ in MESSAGE.findall(said)]
    assert len(times) > 10 * COMMANDS
    # Most conversations had some in the middle. Whether a word of ours is cut is a matter of luck
    # here, as QEMU's UART is as fast as memory: tests/shell cuts them everywhere.
    talks = re.findall(r"@([0-9a-f]{8}) \d+ K (.*?)@\1 \d+ Q", said, re.DOTALL)
    assert sum(bool(MESSAGE.search(talk)) for _, talk in talks) > COMMANDS // 2
    board.run("kill $(cat /tmp/noise)")
