"""hil_pstore on an emulated board, whose memory outlives a restart but not the loss of its power.

The board's kernel gets ramoops, and a part of the memory for it, by changes to the board's disk.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.cache import Cache
from pytest_hil.lab.lease import DIRECTORY
from pytest_hil.qemu.image import cpio, deb
from pytest_hil.qemu.image.distribution import host_distribution
from pytest_hil.qemu.image.tree import Tree
from pytest_hil.rig.rig import Rig

pytestmark = [pytest.mark.machine, pytest.mark.slow]

RCS = Path(__file__).parents[2] / "pytest_hil" / "rig" / "board-rcS.sh"
# Above what the kernel is told of, and below where U-Boot lies.
MEM, ADDRESS = "mem=200M", 0x40000000 + 200 * 2**20

TESTS = f"""
from pathlib import Path

def test_make_room_for_records(hil):
    hil.put(Path("more.cpio"), "/tmp/more.cpio")
    hil.run('''set -e
    modprobe ext4
    mkdir /tmp/disk
    mount -t ext4 /dev/vda1 /tmp/disk
    cat /tmp/more.cpio >> /tmp/disk/boot/initrd.img
    sed -i "s/append/append {MEM}/" /tmp/disk/boot/extlinux/extlinux.conf
    umount /tmp/disk''')
    hil.power.cycle()
    assert hil.run("dmesg").stdout.count("ramoops: using 0x100000@{ADDRESS:#x}") == 1

def test_it_dies_in_silence_and_restarts(hil):
    hil.run('''echo N > /sys/class/tty/ttyAMA0/console
    echo 1 > /proc/sys/kernel/panic
    (sleep 1; echo c > /proc/sysrq-trigger) > /dev/null 2>&1 &''')
    hil.console.expect("stop autoboot", timeout=60)

def test_it_dies_under_a_command(hil):
    hil.run('''echo N > /sys/class/tty/ttyAMA0/console
    echo -1 > /proc/sys/kernel/panic
    sleep 1; echo c > /proc/sysrq-trigger''')

def test_the_next_one(hil):
    assert not hil.run("ls /sys/fs/pstore").stdout
"""


def more_of_the_guest() -> bytes:
    """An archive to lie behind the board's own: its kernel's ramoops, loaded at each boot."""
    archives = Cache.default().root / "apt" / f"{host_distribution().name}-arm64" / "archives"
    packages = [*archives.glob("linux-image-*.deb"), *archives.glob("linux-modules-*.deb")]
    newest = max(packages, key=lambda path: (path.stat().st_mtime, path.stat().st_size))
    tree = Tree()
    load = ["reed_solomon", "ramoops"]
    ends = tuple(f"/{name}.ko" for name in load)
    found = list(deb.members(newest, wanted=lambda path: path.endswith(ends)))
    if len(found) < len(load):
        pytest.skip(f"{newest.name} has not all of {', '.join(ends)}")
    for path, entry in found:
        tree.file(f"boot/{Path(path).name}", entry.data)
    lines = [f"insmod /boot/{name}.ko" for name in load]
    lines[-1] += f" mem_address={ADDRESS:#x} mem_size=0x100000 record_size=0x10000"
    tree.file("etc/init.d/rcS", RCS.read_bytes() + "\n".join([*lines, ""]).encode(), 0o755)
    return cpio.archive(tree.items())


def test_a_board_that_died_in_silence(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nhil_pstore = true\n")
    (tmp_path / "test_inner.py").write_text(TESTS)
    with Rig(boards=1, kinds=("arm64",)) as rig:
        (tmp_path / "more.cpio").write_bytes(more_of_the_guest())
        argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--durations=9"]
        done = subprocess.run(
            [*argv, f"--hil-boards={rig.boards_toml}", "--hil-target=rig1"],
            cwd=tmp_path,
            env={
                **os.environ,
                **rig.environment,
                DIRECTORY: str(tmp_path / "lab"),
                "COLUMNS": "200",
            },
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
    said = done.stdout + done.stderr
    assert done.returncode == 1, said
    title = "crash: panic: sysrq triggered crash"
    for name in ("test_it_dies_in_silence_and_restarts", "test_it_dies_under_a_command"):
        assert f"FAILED test_inner.py::{name} - {title}" in said
    assert "2 failed, 2 passed" in said, said
