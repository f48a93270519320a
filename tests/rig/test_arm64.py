"""Emulated boards: U-Boot, Linux, login and SSH, by raw reads of their serial line."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.board.station import Station
from pytest_hil.config import load
from pytest_hil.config.board import BoardTarget
from pytest_hil.rig.arm64 import UBOOT, EmulatedBoard
from pytest_hil.rig.disk import dropbear_key, partition_table
from pytest_hil.rig.rig import Rig

Connect = Callable[..., Any]

_NEEDED = ("qemu-system-aarch64", "apt-get", "mke2fs", "ssh-keygen")

machine = [
    pytest.mark.machine,
    pytest.mark.skipif(not UBOOT.is_file(), reason="no u-boot-qemu on this host"),
    pytest.mark.skipif(not all(map(shutil.which, _NEEDED)), reason=f"needs {', '.join(_NEEDED)}"),
]


def on_machine(test: Callable[..., None]) -> Callable[..., None]:
    for mark in machine:
        test = mark(test)
    return test


@pytest.fixture
def board() -> Iterator[EmulatedBoard]:
    with Rig(boards=1, kinds=["arm64"], progress=print) as rig:
        (made,) = rig.boards
        assert isinstance(made, EmulatedBoard)
        yield made


def qemu_of(board: EmulatedBoard) -> list[int]:
    """The processes that have the board's own disk on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and str(board.directory) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@on_machine
def test_from_power_to_bootloader_to_shell(board: EmulatedBoard, connect: Connect) -> None:
    line = connect(board)
    board.power(True)
    said = line.until(rb"Hit any key to stop autoboot: ", timeout=30)
    # Nothing of its first words is lost.
    assert said.strip().startswith(b"U-Boot 20")
    line.socket.sendall(b" ")
    line.until(rb"\n=> $", timeout=30)
    line.type("printenv bootdelay board")
    line.until(rb"bootdelay=2\r\nboard=qemu-arm\r\n=> $", timeout=30)
    line.type("boot")
    said = line.until(rb"board login: $", timeout=120)
    assert b"Found /boot/extlinux/extlinux.conf" in said
    assert b"Booting Linux on physical CPU" in said
    # It looked in no place that takes time.
    assert b"DHCP" not in said
    assert b"PXE" not in said
    line.type("root")
    line.until(rb"Password: $", timeout=30)
    line.type("wrong")
    line.until(rb"Login incorrect", timeout=30)
    line.until(rb"board login: $", timeout=30)
    line.type("root")
    line.until(rb"Password: $", timeout=30)
    line.type("hil")
    line.until(rb"# ", timeout=30)
    line.type("uname -m; id -u; ps | grep -c [h]il-agent; readlink /proc/$$/exe")
    line.until(rb"\naarch64\r\n0\r\n0\r\n/\S*busybox\r\n", timeout=30)
    check_ssh(board)
    check_off_and_on(board, line)


def check_ssh(board: EmulatedBoard) -> None:
    known = board.directory / "known_hosts"
    known.write_text(f"[127.0.0.1]:{board.ssh.port} {board.ssh.host_key}\n")
    done = subprocess.run(
        [
            *("ssh", "-F", "none", "-i", str(board.ssh.key), "-p", str(board.ssh.port)),
            *("-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes"),
            *("-o", "StrictHostKeyChecking=yes", "-o", f"UserKnownHostsFile={known}"),
            *("root@127.0.0.1", "uname -m; cat; exit 7"),
        ],
        input=b"through",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (b"aarch64\nthrough", 7), done.stderr


def check_off_and_on(board: EmulatedBoard, line: Any) -> None:
    line.type("dd if=/dev/zero of=/dev/vda seek=149000 bs=512 count=1; echo writ''ten")
    line.until(rb"written\r\n", timeout=30)
    line.type("while :; do echo noise; done")
    line.until(rb"noise\r\n", timeout=30)
    began = time.monotonic()
    board.power(False)
    assert time.monotonic() - began < 1
    assert qemu_of(board) == []
    line.silent(0.1)  # what was on its way
    assert line.silent(0.3) == b""
    board.power(True)
    said = line.until(rb"Hit any key to stop autoboot: ", timeout=30)
    assert said.strip().startswith(b"U-Boot 20")
    assert board.record.count("begin") == 1


@on_machine
def test_boots_by_itself_and_reboots(board: EmulatedBoard, connect: Connect) -> None:
    line = connect(board)
    board.power(True)
    line.until(rb"board login: $", timeout=120)
    line.type("root")
    line.until(rb"Password: $", timeout=30)
    line.type("hil")
    line.until(rb"# ", timeout=30)
    line.type("reboot")
    line.until(rb"reboot: Restarting system", timeout=60)
    line.until(rb"U-Boot 20", timeout=30)
    line.until(rb"Hit any key to stop autoboot: ", timeout=30)
    line.socket.sendall(b" ")
    line.until(rb"\n=> $", timeout=30)
    line.type("poweroff")
    assert board.record.wait(lambda events: events[-1].what == "exit", timeout=30)
    assert board.powered


@on_machine
def test_a_station_drives_it_by_boards_toml(monkeypatch: pytest.MonkeyPatch) -> None:
    """Console, Tasmota, U-Boot, login and serial shell as pytest-hil has them."""
    with Rig(boards=1, kinds=["arm64"]) as rig:
        for name, value in rig.environment.items():
            monkeypatch.setenv(name, value)
        target = load(rig.boards_toml, root=rig.directory).targets["rig1"]
        assert isinstance(target, BoardTarget)
        station = Station(target)
        try:
            station.boot("bootloader")
            assert station.bootloader.env["bootdelay"] == "2"
            station.boot()
            assert station.shell("run").run("uname -m").stdout == "aarch64\n"
            station.boot("bootloader")  # by way of its power
        finally:
            station.close()
        assert rig.boards[0].record.count("off") == 1


@on_machine
def test_faults_of_a_machine(board: EmulatedBoard, connect: Connect) -> None:
    line = connect(board)
    board.power(True)
    line.until(rb"Hit any key", timeout=30)
    board.fault("brown-out")
    line.until(rb"U-Boot 20", timeout=30)
    board.fault("boot-loop", seconds=1.0)
    for _ in range(2):
        line.until(rb"U-Boot 20", timeout=30)
    board.fault("dead")
    line.silent(0.1)
    assert line.silent(1.5) == b""
    board.fault("none")
    line.until(rb"U-Boot 20", timeout=30)


@on_machine
def test_nothing_of_it_is_left(connect: Connect) -> None:
    with Rig(boards=1, kinds=["arm64"]) as rig:
        (board,) = rig.boards
        assert isinstance(board, EmulatedBoard)
        line = connect(board)
        board.power(True)
        line.until(rb"U-Boot", timeout=30)
        assert len(qemu_of(board)) == 1
    assert qemu_of(board) == []
    assert not rig.directory.exists()


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="no ssh-keygen")
def test_a_key_as_dropbear_keeps_it(tmp_path: Path) -> None:
    key = tmp_path / "key"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "some words", "-f", str(key)]
    subprocess.run(argv, check=True)
    made = dropbear_key(key.read_text())
    assert made[:19] == b"\0\0\0\x0bssh-ed25519\0\0\0\x40"
    assert len(made) == 19 + 64
    from base64 import b64decode

    # Its second half is the public key.
    assert b64decode((tmp_path / "key.pub").read_text().split()[1]).endswith(made[-32:])


def test_a_partition_table_is_one_sector() -> None:
    table = partition_table(4096)
    assert len(table) == 512
    assert table[-2:] == b"\x55\xaa"
    assert table[446] == 0x80
    assert table[454:462] == (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
