"""An emulated board: U-Boot, the distribution's kernel, getty, login and SSH on an emulated arm64.

Nothing in it is ours but the wiring: what it says on its serial line is what a board says.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.errors import ToolMissing
from pytest_hil.process import Process
from pytest_hil.progress import Progress, silent
from pytest_hil.rig.board import LOGIN, Place, RigBoard
from pytest_hil.rig.disk import ARCH, BoardDisk, board_disk
from pytest_hil.rig.outside import HeldPort

UBOOT = Path("/usr/lib/u-boot/qemu_arm64/u-boot.bin")
MEMORY = 256
"""Of each board, in MiB."""


@dataclass(frozen=True, slots=True)
class Ssh:
    """How root's SSH login is reached: a port of 127.0.0.1, a private key's file, and the line of
    the board's own public key (they are the same for all boards of a cache).
    """

    port: int
    key: Path
    host_key: str


class EmulatedBoard(RigBoard):
    """QEMU's arm64 machine, with U-Boot in its flash and Linux on its disk."""

    kind = "arm64"
    arch = ARCH
    features = ("rig", "u-boot", "ssh")
    boot = ({"driver": "u-boot"}, LOGIN)

    def __init__(self, place: Place, *, progress: Progress = silent) -> None:
        if not UBOOT.is_file():
            raise ToolMissing(str(UBOOT), package="u-boot-qemu")
        process.find("qemu-system-aarch64", package="qemu-system-arm")
        disk = board_disk(Cache.default(), progress=progress)
        super().__init__(place)
        self._qemu: Process | None = None
        self._disk = place.directory / "disk.qcow2"
        self._log = place.directory / "qemu.log"
        self._ssh_port = HeldPort()
        self.ssh = Ssh(self._ssh_port.number, disk.key, disk.host_key)
        try:
            self._make_disk(disk)
        except BaseException:
            self.close()
            raise

    def _make_disk(self, disk: BoardDisk) -> None:
        """Its own layer on the disk, which lasts over power cycles."""
        self._disk.unlink(missing_ok=True)
        process.find("qemu-img", package="qemu-utils")
        argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(disk.image)]
        process.run([*argv, str(self._disk)])

    def _start(self) -> None:
        ours, its = socket.socketpair()
        try:
            with self._log.open("wb") as log:
                argv = self._argv(its.fileno())
                self._qemu = process.start(argv, stderr=log, pass_fds=[its.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            its.close()
        self.line.attach(ours.detach())
        keeper = threading.Thread(
            target=self._keep, args=(self._qemu,), name=f"hil-rig-{self.name}", daemon=True
        )
        keeper.start()

    def _argv(self, serial: int) -> list[str]:
        forward = f"hostfwd=tcp:127.0.0.1:{self._ssh_port.number}-:22"
        return [
            "qemu-system-aarch64",
            *("-nodefaults", "-no-user-config", "-display", "none"),
            *("-name", self.name),
            *("-machine", "virt", "-accel", "tcg", "-cpu", "max,pauth-impdef=on"),
            *("-m", f"{MEMORY}M"),
            *("-bios", str(UBOOT)),
            *("-chardev", f"socket,id=serial,fd={serial}", "-serial", "chardev:serial"),
            *("-drive", f"if=none,id=disk,format=qcow2,file={_escape(self._disk)}"),
            *("-device", "virtio-blk-pci,drive=disk"),
            *("-netdev", f"user,id=net,restrict=on,{forward}"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
            *("-device", "virtio-rng-pci"),
        ]

    def _keep(self, qemu: Process) -> None:
        """Write down that it has switched itself off, or why QEMU has failed."""
        code = qemu.wait()
        with self._lock:
            if self._qemu is qemu:
                with contextlib.suppress(OSError):
                    said = self._log.read_text(errors="replace").strip()[-1000:]
                    self.record.add("exit", detail=f"QEMU's exit code {code}: {said}".rstrip(": "))

    def _stop(self) -> None:
        qemu, self._qemu = self._qemu, None
        if qemu is not None:
            qemu.end()

    def close(self) -> None:
        super().close()
        self._ssh_port.close()
        self._disk.unlink(missing_ok=True)


def _escape(path: Path) -> str:
    """A comma ends an option's value in QEMU; two of them mean one."""
    return str(path).replace(",", ",,")
