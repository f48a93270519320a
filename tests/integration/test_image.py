"""Images from the distribution's real packages, booted."""

from __future__ import annotations

import os
import re
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which

import pytest

from pytest_hil import process
from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage, GuestFile, host_arch
from pytest_hil.process import Process
from pytest_hil.qemu.image import Image, deb, resolve
from pytest_hil.qemu.image.distribution import debian_arch, host_distribution
from pytest_hil.qemu.image.manifest import Manifest

pytestmark = [
    pytest.mark.machine,
    pytest.mark.skipif(which("apt-get") is None, reason="no apt on this host"),
]

READY = "pytest-hil: ready\r\n"

MACHINES = {
    "x86_64": ["qemu-system-x86_64", "-machine", "pc"],
    "aarch64": ["qemu-system-aarch64", "-machine", "virt", "-cpu", "max,pauth-impdef=on"],
}


class Guest:
    """A booted image, spoken to over its first serial line."""

    def __init__(self, qemu: Process) -> None:
        self._qemu = qemu
        self.text = ""

    def expect(self, pattern: str, *, timeout: float = 60) -> re.Match[str]:
        """The first match in what the console has said and was not yet taken."""
        assert self._qemu.stdout is not None
        deadline = time.monotonic() + timeout
        while (match := re.search(pattern, self.text)) is None:
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in:\n{self.text}"
            if select.select([self._qemu.stdout], [], [], left)[0]:
                data = os.read(self._qemu.stdout.fileno(), 65536)
                assert data, f"QEMU ended; the console said:\n{self.text}"
                self.text += data.decode(errors="replace")
        self.text = self.text[match.end() :]
        return match

    def send(self, line: str) -> None:
        assert self._qemu.stdin is not None
        self._qemu.stdin.write(f"{line}\n".encode())
        self._qemu.stdin.flush()

    def run(self, command: str) -> str:
        """What a command prints on the console; the kernel keeps quiet meanwhile."""
        # The quotes tell the echo of the line from what it prints.
        self.send(f"dmesg -n 1; echo BE''GIN; {command}; echo E''ND")
        return self.expect(r"(?s)BEGIN\r\n(.*?)END\r\n")[1].replace("\r\n", "\n")


@contextmanager
def booted(image: Image, *, memory: str = "256") -> Iterator[Guest]:
    machine = MACHINES[image.arch]
    if which(machine[0]) is None:
        pytest.skip(f"no {machine[0]} on this host")
    argv = [*machine, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
    argv += ["-m", memory, "-serial", "stdio", "-no-reboot"]
    argv += ["-device", "virtio-serial-pci", "-device", "virtserialport,chardev=agent,name=x"]
    argv += ["-chardev", "null,id=agent", "-netdev", "user,id=net,restrict=on"]
    argv += ["-device", "virtio-net-pci,netdev=net,romfile="]
    argv += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", image.append]
    with process.start(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as qemu:
        yield Guest(qemu)


def build(spec: DebianImage, *, arch: str = host_arch()) -> Image:
    return resolve(spec, arch=arch, cache=Cache.default(), progress=print)


def check_default_guest(guest: Guest, image: Image) -> None:
    assert guest.run("cat /proc/sys/kernel/tainted") == "0\n"
    assert "hil-agent" in guest.run("ps")
    assert guest.run("ls -d /sys/devices/platform/vhci_hcd.0") != ""
    assert guest.run("ls /dev/virtio-ports 2>&1; ls /sys/class/virtio-ports") != ""
    assert "Imported USB devices" in guest.run("usbip port")
    assert "inet addr:10.0.2.15" in guest.run("ifconfig eth0")
    loaded = guest.run("cut -d ' ' -f 1 /proc/modules").split()
    assert {"usb_storage", "usbhid", "cdc_acm"} <= set(loaded)
    available = guest.run("grep MemAvailable /proc/meminfo").split()
    assert int(available[1]) > 120_000
    for path, mode in (("/", "755"), ("/tmp", "1777"), ("/root", "700")):
        assert guest.run(f"stat -c %a {path}") == f"{mode}\n"
    manifest = Manifest.read(image.kernel.parent) if image.kernel else None
    assert manifest is not None
    assert guest.run("uname -r") == f"{manifest.kernel_version}\n"


def test_the_default_image_gets_ready() -> None:
    image = build(DebianImage(name="debian"))

    with booted(image) as guest:
        guest.expect(READY)
        check_default_guest(guest, image)
        guest.run("modprobe -a ext4 vfat")
        assert guest.run("grep -cwE 'ext4|vfat' /proc/filesystems") == "2\n"
        guest.send("exit")
        guest.expect("built-in shell")
        assert guest.run("echo a new shell") == "a new shell\n"
        guest.run("old=$(pidof hil-agent); kill $old")
        until = 'until new=$(pidof hil-agent) && [ "$new" != "$old" ]; do sleep 0.1; done'
        assert guest.run(f"{until}; echo again") == "again\n"


@pytest.mark.slow
def test_the_arm64_image_gets_ready() -> None:
    image = build(DebianImage(name="debian"), arch="aarch64")

    with booted(image) as guest:
        guest.expect(READY)
        check_default_guest(guest, image)


def test_what_an_image_adds(tmp_path: Path) -> None:
    program = tmp_path / "cat"
    program.write_text("#!/bin/sh\necho my own cat\n")
    program.chmod(0o755)
    spec = DebianImage(
        name="additions",
        packages=("iproute2",),
        modules=("dummy",),
        files=(GuestFile(program, "/usr/local/bin/cat"),),
        startup=("ip link set dummy0 up || { ip link add dummy0 type dummy; }", "echo $0 >/run/by"),
    )

    with booted(build(spec)) as guest:
        guest.expect(READY)
        assert "iproute2" in guest.run("/bin/sh -c 'ip -V'")
        assert "iproute2" in guest.run("ip -V")
        assert guest.run("/bin/sh -c 'cat /proc/version'") == "my own cat\n"
        assert "dummy0" in guest.run("ip link show dummy0")
        assert guest.run("head -1 /run/by") == "/bin/sh\n"
        # Programs of packages are dynamically linked: their libraries must be there.
        assert guest.run("ip -j link show lo | grep -c ifname") == "1\n"


def test_a_startup_line_that_fails_fails_the_boot() -> None:
    spec = DebianImage(
        name="failing", startup=("true", "echo said; exit 3", "echo not reached >/run/after")
    )

    with booted(build(spec)) as guest:
        said = guest.expect(r"pytest-hil: (startup failed: [^\r]*|ready)\r\n")[1]
        assert said == "startup failed: exit code 3: echo said; exit 3"
        assert guest.run("ls /run/after 2>&1 | grep -c 'No such file'") == "1\n"
        assert "hil-agent" not in guest.run("ps | grep -v grep")


@pytest.fixture
def bzimage(tmp_path: Path) -> Path:
    """The distribution's kernel as a user has one: a compressed file and no modules."""
    build(DebianImage(name="debian"))
    name = f"{host_distribution().name}-{debian_arch(host_arch())}"
    archives = Cache.default().root / "apt" / name / "archives"
    packages = [p for p in archives.glob("linux-image-*.deb") if p.stat().st_size > 1_000_000]
    newest = max(packages, key=lambda path: path.stat().st_mtime)
    for path, entry in deb.members(newest, wanted=lambda path: path.startswith("boot/vmlinuz")):
        place = tmp_path / Path(path).name
        place.write_bytes(entry.data)
        return place
    raise AssertionError(f"no kernel in {newest}")


def test_the_users_kernel(bzimage: Path) -> None:
    image = build(DebianImage(name="mine", kernel=bzimage, append="hil.test=1"))

    with booted(image) as guest:
        guest.expect(READY)
        assert guest.run("uname -r") == f"{bzimage.name.removeprefix('vmlinuz-')}\n"
        assert "hil.test=1" in guest.run("cat /proc/cmdline")
        assert guest.run("wc -l </proc/modules") == "0\n"


def test_a_built_image_is_found_in_no_time() -> None:
    build(DebianImage(name="debian"))
    times = []
    for _ in range(20):
        start = time.perf_counter()
        build(DebianImage(name="debian"))
        times.append(time.perf_counter() - start)

    assert sorted(times)[10] < 0.005
