"""USB devices again and again, and large ones: nothing is left, nothing grows."""

from __future__ import annotations

import gc
import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.qemu.guest import Guest
from pytest_hil.usbip.descriptors import parse_configuration
from pytest_hil.usbip.device import VirtualDevice
from pytest_hil.usbip.messages import Speed
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.composite import Composite
from pytest_hil.usbip.virtual.hid import Keyboard, Mouse
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback

pytestmark = [pytest.mark.machine, pytest.mark.slow]

MiB = 2**20


def holdings(guest: Guest) -> dict[str, object]:
    """What there is of everything, here, in QEMU and in the guest."""
    pid = guest.machine.process.pid
    left = "ls /var/run/vhci_hcd 2>/dev/null; netstat -tn | grep -c ESTABLISHED"
    return {
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": threading.active_count(),
        "qemu's descriptors": len(list(Path(f"/proc/{pid}/fd").iterdir())),
        "qemu's children": Path(f"/proc/{pid}/task/{pid}/children").read_text(),
        "the guest's devices": guest.usb.list(),
        "the guest's ports and connections": guest.run(left, check=False).stdout,
        "the guest's nodes": guest.run("find /dev | sort").stdout,
    }


# All 200 with HIL_ENDURANCE=1.
ROUNDS = 200 if os.environ.get("HIL_ENDURANCE") else 80


def test_many_rounds_leave_nothing(guest: Guest) -> None:
    devices: list[VirtualDevice] = [Keyboard(), SerialPort(), Loopback(), MassStorage(MiB)]
    for device in devices:
        guest.usb.attach(device).detach()
    gc.collect()
    before = holdings(guest)
    for number in range(ROUNDS):
        attached = guest.usb.attach(devices[number % len(devices)])
        # One half go by the guest's wish, the other by surprise.
        if number % 8 < 4:
            attached.detach()
        else:
            attached.unplug()
    gc.collect()
    # QEMU's user network keeps a connection that it saw end first for a while (TIME_WAIT).
    deadline = time.monotonic() + 120
    while (after := holdings(guest)) != before and time.monotonic() < deadline:
        threading.Event().wait(1)
    assert after == before


def test_a_large_stick_is_filled_and_read_back(guest: Guest) -> None:
    stick = MassStorage(256 * MiB)
    with guest.usb.attach(stick, timeout=60) as attached:
        disk = attached.node("sd")
        guest.run(f"printf 'n\\np\\n1\\n\\n\\nw\\n' | fdisk {disk}")
        guest.run(f"modprobe vfat; mkdosfs {disk}1 && mount -t vfat {disk}1 /mnt")
        filled = guest.run(
            "head -c 16000000 /dev/urandom >/tmp/piece; n=0; "
            "while cat /tmp/piece >/mnt/$n 2>/dev/null; do n=$((n + 1)); done; "
            "sync; df /mnt | tail -n 1; cd /mnt; md5sum *; cd /; umount /mnt",
            timeout=300,
        )
        usage, *sums = filled.stdout.splitlines()
        assert usage.split()[4] == "100%"
        attached.replug()
        guest.run(f"mount -t vfat {attached.node('sd')}1 /mnt")
        again = guest.run("cd /mnt && md5sum *", timeout=300).stdout.splitlines()
        assert again == sums
        assert len(sums) >= 16
        guest.run("umount /mnt")


class FastLoopback(Loopback):
    speed = Speed.SUPER


class SlowStick(MassStorage):
    speed = Speed.HIGH


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="no apt on this host")
def test_descriptors_as_lsusb_and_the_kernel_read_them(tmp_path: Path) -> None:
    (tmp_path / "boards.toml").write_text(
        '[image.tools]\npackages = ["usbutils"]\n[target.box]\nbackend = "qemu"\nimage = "tools"\n'
    )
    with Bench(Settings(root=tmp_path, accel="tcg")) as bench:
        guest = bench.open(bench.target("box"))
        for device in (
            Keyboard(),
            Mouse(),
            SerialPort(),
            Loopback(),
            FastLoopback(),
            MassStorage(MiB),
            Composite(Keyboard(), SerialPort(), SlowStick(MiB)),
        ):
            with guest.usb.attach(device) as attached:
                for interface, driver in attached.interfaces.items():
                    if driver == "usbhid":  # while it has it, lsusb cannot read its reports
                        name = f"{attached.guest_busid}:{interface}"
                        guest.run(f"echo {name} >/sys/bus/usb/drivers/usbhid/unbind")
                check_by_lsusb(guest, device)
                check_by_kernel(guest, attached.guest_busid)
        guest.close()


def check_by_lsusb(guest: Guest, device: VirtualDevice) -> None:
    said = guest.run(f"lsusb -v -d {device.vendor_id:04x}:{device.product_id:04x}")
    assert f"iProduct                2 {device.product}" in said.stdout
    # How lsusb says that it has found something that it cannot read.
    for complaint in ("unrecognized", "Warning", "INVALID", "** UNAVAILABLE **", "bad", "junk"):
        assert complaint not in said.stdout, said.stdout
    assert said.stderr.strip() in (
        "",
        "can't get debug descriptor: Resource temporarily unavailable",
    )


def check_by_kernel(guest: Guest, busid: str) -> None:
    """The guest's kernel and our own parser read the same in the same bytes."""
    place = f"/sys/bus/usb/devices/{busid}"
    text = guest.run(f"cd {place} && cat descriptors | hexdump -v -e '1/1 \"%02x\"'").stdout
    data = bytes.fromhex(text)
    configuration = parse_configuration(data[18:])
    ours = sorted(
        f"{endpoint.address:02x} {endpoint.attributes:02x} {endpoint.max_packet:04x}"
        for interface in configuration.interfaces
        if interface.alternate == 0
        for endpoint in interface.endpoints
    )
    script = (
        f"for e in {place}/{busid}:*/ep_*; do "
        'echo "$(cat $e/bEndpointAddress) $(cat $e/bmAttributes) $(cat $e/wMaxPacketSize)"; done'
    )
    assert sorted(guest.run(script).stdout.splitlines()) == ours
    counted = guest.run(f"cat {place}/bNumInterfaces").stdout.strip()
    assert int(counted) == len({one.number for one in configuration.interfaces})
