"""The Linux kernel's own USB/IP exporters, in a guest: for tests that need somebody else's.

``gadget``: usbip-vudc with a gadget of configfs (a source and sink of bulk and isochronous data,
a serial port, and a HID with an interrupt endpoint in each direction). ``host``: usbip-host, with a device of the
guest's, which is one of ours that is attached to it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.bench import Bench, Settings
from pytest_hil.qemu.guest import Guest

if TYPE_CHECKING:
    from pytest_hil.usbip.urb import Exportable

BOARDS = """
[image.exporter]
modules = ["libcomposite", "usb_f_ss_lb", "usb_f_acm", "usb_f_hid", "usbip-vudc", "usbip-host"]

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
ln -s functions/SourceSink.0 functions/acm.0 functions/hid.0 configs/c.1/
echo usbip-vudc.0 > UDC
usbipd --device --daemon
"""

HOST = """
set -e
usbip bind --busid={busid}
usbipd --daemon
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
        guest.run(GADGET + LISTENS, timeout=60)
        yield LinuxExporter(guest, ("127.0.0.1", guest.forward(3240)), "usbip-vudc.0")


@contextlib.contextmanager
def host(bench: Bench, device: Exportable) -> Iterator[LinuxExporter]:
    """The kernel's exporter of the devices of its host: one of ours, which is attached to it."""
    with contextlib.closing(bench.open(bench.target("exporter"))) as guest:
        attached = guest.usb.attach(device)
        guest.run(HOST.format(busid=attached.guest_busid) + LISTENS, timeout=60)
        yield LinuxExporter(guest, ("127.0.0.1", guest.forward(3240)), attached.guest_busid)
