"""The Linux kernel's own USB/IP exporters, in a guest: for tests that need somebody else's.

``gadget``: usbip-vudc, the kernel's virtual device controller. ``host``: usbip-host, which exports
what is plugged into its host, here a gadget on dummy_hcd (it refuses what is attached over USB/IP:
stub_probe in drivers/usb/usbip/stub_dev.c). The gadget is of configfs: a source and sink of bulk
and isochronous data, a serial port, and a HID with an interrupt endpoint in each direction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.bench import Bench, Settings
from pytest_hil.qemu.guest import Guest

BOARDS = """
[image.exporter]
modules = ["libcomposite", "usb_f_ss_lb", "usb_f_acm", "usb_f_hid",
           "usbip-vudc", "usbip-host", "dummy_hcd"]

[target.exporter]
backend = "qemu"
image = "exporter"
forwards = [3240]
"""

GADGET = """
set -e
mount -t configfs none /sys/kernel/config
mkdir /sys/kernel/config/usb_gadget/g
cd /sys/kernel/config/usb_gadget/g
echo 0x1d6b > idVendor
echo 0x0104 > idProduct
mkdir strings/0x409
echo linux > strings/0x409/manufacturer
echo gadget > strings/0x409/product
echo 42 > strings/0x409/serialnumber
mkdir configs/c.1 functions/SourceSink.0 functions/acm.0 functions/hid.0
echo 8 > functions/hid.0/report_length
printf '\\006\\000\\377\\011\\001\\241\\001\\300' > functions/hid.0/report_desc
# The HID before the serial port, which has a notification to say at once.
ln -s functions/SourceSink.0 configs/c.1/
ln -s functions/hid.0 configs/c.1/
ln -s functions/acm.0 configs/c.1/
"""

VUDC = """
echo usbip-vudc.0 > UDC
usbipd --device --daemon
"""

HOST = """
echo dummy_udc.0 > UDC
until id=$(grep -ls 0104 /sys/bus/usb/devices/*/idProduct); do usleep 50000; done
id=${id%/idProduct}
id=${id##*/}
usbip bind --busid=$id > /dev/null
usbipd --daemon
echo $id
"""

# It is a daemon before it listens.
LISTENS = """
until usbip list --remote=127.0.0.1 > /dev/null 2>&1; do usleep 50000; done
"""


@dataclass(frozen=True, slots=True)
class LinuxExporter:
    """Where it is, and the machine that it runs on."""

    guest: Guest
    address: tuple[str, int]
    busid: str


@contextlib.contextmanager
def bench_for(directory: Path) -> Iterator[Bench]:
    """A bench that has the machine for it."""
    boards = directory / "boards.toml"
    boards.write_text(BOARDS)
    with Bench(Settings(root=directory, boards=boards, accel="tcg")) as bench:
        yield bench


@contextlib.contextmanager
def gadget(bench: Bench) -> Iterator[LinuxExporter]:
    """The kernel's virtual device controller, with a gadget."""
    with contextlib.closing(bench.open(bench.target("exporter"))) as guest:
        guest.run(GADGET + VUDC + LISTENS, timeout=60)
        yield LinuxExporter(guest, ("127.0.0.1", guest.forward(3240)), "usbip-vudc.0")


@contextlib.contextmanager
def host(bench: Bench) -> Iterator[LinuxExporter]:
    """The kernel's exporter of what is plugged into its host: the same gadget."""
    with contextlib.closing(bench.open(bench.target("exporter"))) as guest:
        busid = guest.run(GADGET + HOST + LISTENS, timeout=60).stdout.strip()
        yield LinuxExporter(guest, ("127.0.0.1", guest.forward(3240)), busid)
