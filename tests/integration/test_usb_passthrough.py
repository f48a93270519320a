"""A device of a host, passed through by libusb: the host is a guest, whose kernel really has it.

There is no USB hardware in CI. In the guest, usbfs and libusb are the real ones; the devices behind
them are our loopback device, attached there over USB/IP, and QEMU's own stick on an xHCI.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import usb1

import pytest_hil
from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import ChannelLost
from pytest_hil.qemu.guest import Guest
from pytest_hil.usbip.declare import Setup
from pytest_hil.usbip.importer import Importer, Refused, Transfer, list_devices
from pytest_hil.usbip.messages import SHORT, SHUTDOWN, STALL, UNLINKED, IsoPacket
from pytest_hil.usbip.urb import Urb
from pytest_hil.usbip.virtual.vendor import Loopback

pytestmark = [pytest.mark.machine, pytest.mark.slow]

PATIENCE = 30.0
BOARDS = """
[image.host]
packages = ["python3", "python3-libusb1", "libusb-1.0-0"]
modules = ["xhci-pci"]

[target.host]
backend = "qemu"
image = "host"
memory = "512M"
forwards = [3240]
extra_args = [
  "-device", "qemu-xhci,id=xhci,addr=0x9",
  "-drive", "if=none,id=stick,format=raw,file={stick},readonly=on",
  "-device", "usb-storage,bus=xhci.0,drive=stick,serial=S-42",
]
"""

# The libusb1 of these tests, and Debian's: 2.0, which has no flags and cannot wake who waits.
NEWEST, DEBIAN = "/root/newest", "/usr/lib/python3/dist-packages"
both = pytest.mark.parametrize("loopback", [NEWEST, DEBIAN], indirect=True, ids=["new", "old"])


class Watched(Loopback):
    """Remembers what came, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.came: list[tuple[int, int]] = []
        self.requests: list[tuple[int, int]] = []

    def submit_to(self, address: int, urb: Urb) -> None:
        self.came.append((urb.address, urb.flags))
        super().submit_to(address, urb)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        self.requests.append((setup.type, setup.request))
        return super().control(setup, data)


@pytest.fixture(scope="module")
def content() -> bytes:
    return os.urandom(2**20)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> Iterator[Guest]:
    """A machine with our package, and libusb1 twice."""
    directory = tmp_path_factory.mktemp("passthrough")
    (directory / "stick").write_bytes(content)
    boards = directory / "boards.toml"
    boards.write_text(BOARDS.format(stick=directory / "stick"))
    with (
        Bench(Settings(root=directory, boards=boards, accel="tcg")) as bench,
        contextlib.closing(bench.open(bench.target("host"))) as found,
    ):
        for package, place in ((pytest_hil, "/root/package"), (usb1, NEWEST)):
            source = Path(str(package.__file__)).parent
            tree = directory / Path(place).name
            ignored = shutil.ignore_patterns("__pycache__", "bin")
            shutil.copytree(source, tree / source.name, ignore=ignored)
            found.put(tree, place)
        found.put(Path(__file__).parent / "usb_passthrough.py", "/root/export.py")
        # Debian's libusb1 asks ldconfig where libusb is, which is not there, or takes this name.
        found.run("cd /usr/lib/*-linux-gnu && ln -s libusb-1.0.so.0 libusb-1.0.so")
        yield found


def said(host: Guest, pattern: str) -> str:
    """All that the exporting program says, when this is in it."""
    until = f"until grep -q '{pattern}' /root/out; do pidof python3 || break; usleep 50000; done"
    host.run(f"{until} > /dev/null", timeout=PATIENCE)
    return host.run("cat /root/out").stdout


def imported_again(host: Guest) -> Importer:
    """By another importer; the one before may not be quite gone."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return Importer(("127.0.0.1", host.forward(3240)), "1-1")
        except Refused:
            assert time.monotonic() < deadline


@contextlib.contextmanager
def exported(host: Guest, vendor: int, product: int, library: str = NEWEST) -> Iterator[Importer]:
    """The program runs, and its device is imported."""
    path = f"PYTHONPATH={library}:/root/package"
    command = f"{path} python3 /root/export.py {vendor:04x} {product:04x} > /root/out 2>&1"
    host.run(f"rm -f /root/out; touch /root/out; ({command}) < /dev/null > /dev/null 2>&1 &")
    host.run("until pidof python3 > /dev/null; do usleep 20000; done", timeout=PATIENCE)
    assert said(host, "listening") == "listening\n"
    with Importer(("127.0.0.1", host.forward(3240)), "1-1") as importer:
        yield importer
    host.run("kill $(pidof python3)")
    # No thread of it is left, and nothing that it did has raised.
    *before, last = said(host, "^closed").splitlines()
    assert last == "closed []", before
    assert {line.split()[0] for line in before} <= {"listening", "unplug"}, before
    host.run("while pidof python3 > /dev/null; do usleep 20000; done", timeout=PATIENCE)


@pytest.fixture
def loopback(
    host: Guest, request: pytest.FixtureRequest
) -> Iterator[tuple[Watched, Importer, Guest]]:
    device = Watched()
    library = getattr(request, "param", NEWEST)
    with host.usb.attach(device), exported(host, 0x1209, 0x0001, library) as importer:
        assert importer.control(0x00, 9, 1).status == 0
        yield device, importer, host


Parts = tuple[Watched, Importer, Guest]


def test_an_exporter_needs_nothing_else(host: Guest) -> None:
    # -S: no site-packages at all.
    host.run("PYTHONPATH=/root/package python3 -S -c 'import pytest_hil.usbip.exporter'")
    command = "PYTHONPATH=/root/package python3 -S -c 'import pytest_hil.usbip.passthrough_libusb1'"
    missing = host.run(command, check=False)
    assert "libusb1 is not installed" in missing.stderr
    assert "pip install 'pytest-hil[libusb1]'" in missing.stderr


@both
def test_many_transfers_at_once(loopback: Parts) -> None:
    _device, importer, _host = loopback
    data = [os.urandom(size) for size in range(100, 132)]
    readers = [importer.submit(0x81, length=512) for _ in data]
    writers = [importer.submit(0x01, data=one) for one in data]
    assert [one.wait(PATIENCE).status for one in writers] == [0] * len(data)
    assert [bytes(one.wait(PATIENCE).data) for one in readers] == data


@both
def test_every_kind_of_transfer(loopback: Parts) -> None:
    _device, importer, _host = loopback
    assert importer.write(2, b"interrupt").actual == 9
    assert bytes(importer.read(0x82, 64).data) == b"interrupt"
    assert importer.control(0x40, 0x5B, data=b"kept").actual == 4
    assert bytes(importer.control(0xC0, 0x5C, data=64).data) == b"kept"
    assert importer.control(0xC0, 0x77, data=8).status == STALL
    big = os.urandom(200_000)
    reader = importer.submit(0x81, length=len(big))
    assert importer.write(1, big, timeout=PATIENCE).actual == len(big)
    assert bytes(reader.wait(PATIENCE).data) == big
    text = bytes(importer.control(0x80, 6, 0x0302, 0x0409, 255).data)
    assert text[2:].decode("utf-16-le") == "Loopback"


@both
def test_isochronous(loopback: Parts) -> None:
    _device, importer, _host = loopback
    assert importer.control(0x01, 11, 1, 0).status == 0
    data = os.urandom(160)
    # With gaps, which libusb does not have.
    spread = b"".join(data[at : at + 20] + bytes(12) for at in range(0, 160, 20))
    out = [IsoPacket(offset, 20) for offset in range(0, 256, 32)]
    sent = importer.submit(0x03, data=spread, iso=out).wait(PATIENCE)
    assert (sent.status, sent.actual, [one.actual for one in sent.iso]) == (0, 160, [20] * 8)
    came = b""
    for _ in range(10):
        back = [IsoPacket(offset, 192) for offset in range(0, 4 * 192, 192)]
        got = importer.submit(0x83, length=4 * 192, iso=back).wait(PATIENCE)
        assert (got.status, [one.status for one in got.iso]) == (0, [0] * 4)
        assert sum(one.actual for one in got.iso) == got.actual == len(got.data)
        came += bytes(got.data)
        if len(came) >= len(data):
            break
    assert came == data


def test_flags(loopback: Parts) -> None:
    device, importer, _host = loopback
    short_not_ok, zero_packet = 0x1, 0x40
    assert importer.submit(0x01, data=bytes(512), flags=zero_packet).wait(PATIENCE).status == 0
    assert importer.submit(0x81, length=512, flags=short_not_ok).wait(PATIENCE).status == 0
    assert importer.write(1, b"short").status == 0
    reader = importer.submit(0x81, length=512, flags=short_not_ok).wait(PATIENCE)
    assert (reader.status, bytes(reader.data)) == (SHORT, b"short")
    # The guest's kernel was asked for it; libusb keeps the other flag to itself.
    assert [flags & zero_packet for address, flags in device.came if address == 1] == [0x40, 0]


def test_a_halt_is_cleared(loopback: Parts) -> None:
    _device, importer, _host = loopback
    assert importer.control(0x02, 3, 0, 0x81).status == 0
    assert importer.read(1, 8).status == STALL
    assert importer.control(0x02, 1, 0, 0x81).status == 0
    assert importer.write(1, b"on").status == 0
    assert bytes(importer.read(1, 8).data) == b"on"


def control(importer: Importer, kind: int, request: int, value: int, data: bytes = b"") -> Transfer:
    fields = (value, 0, len(data))
    setup = bytes((kind, request)) + b"".join(one.to_bytes(2, "little") for one in fields)
    return importer.submit(0, data=data, setup=setup)


def test_control_transfers_are_in_order(loopback: Parts) -> None:
    device, importer, _host = loopback
    device.requests.clear()
    wanted = [(0x01, 11), (0x40, 0x5B), (0x40, 0x5B)] * 5
    every = [
        control(importer, kind, request, 0, b"x" if kind == 0x40 else b"")
        for kind, request in wanted
    ]
    assert [one.wait(PATIENCE).status for one in every] == [0] * len(wanted)
    assert device.requests == wanted


def test_another_setting_while_transfers_wait(loopback: Parts) -> None:
    _device, importer, host = loopback
    waiting = [importer.submit(address, length=64) for address in (0x81, 0x81, 0x82)]
    assert importer.control(0x01, 11, 1, 0).status == 0
    assert [one.wait(PATIENCE).status for one in waiting] == [SHUTDOWN] * 3
    assert importer.write(1, b"still there").actual == 11
    assert bytes(importer.read(1, 64).data) == b"still there"
    waiting = [importer.submit(0x81, length=64) for _ in range(2)]
    assert importer.control(0x00, 9, 1).status == 0
    assert [one.wait(PATIENCE).status for one in waiting] == [SHUTDOWN] * 2
    assert said(host, "listening") == "listening\n"


def test_giving_up(loopback: Parts) -> None:
    _device, importer, _host = loopback
    waiting = [importer.submit(0x81, length=64) for _ in range(8)]
    assert waiting[3].cancel().status == UNLINKED
    assert waiting[0].cancel().status == UNLINKED
    for number in (1, 2, 4):
        assert importer.write(1, b"for %d" % number).actual == 5
        assert bytes(waiting[number].wait(PATIENCE).data) == b"for %d" % number


def test_one_importer_after_the_other(loopback: Parts) -> None:
    _device, importer, host = loopback
    for _ in range(5):
        for _ in range(8):
            importer.submit(0x81, length=64)
        importer.close()
        importer = imported_again(host)
        # While those of the one before are being given up.
        descriptors = [importer.control(0x80, 6, 0x0100, data=18) for _ in range(3)]
        assert [(one.status, one.actual) for one in descriptors] == [(0, 18)] * 3
        assert importer.control(0x00, 9, 1).status == 0
        assert importer.write(1, b"mine").actual == 4
        assert bytes(importer.read(1, 64).data) == b"mine"
    importer.close()


def test_unplugged_under_load(loopback: Parts) -> None:
    device, importer, host = loopback
    every = []
    for number in range(40):
        every += [importer.submit(0x84, length=4096), importer.submit(0x04, data=bytes(4096))]
        every.append(importer.submit(0x81, length=64))
        if number == 20:
            assert every[0].wait(PATIENCE).status == 0
    device.unplug()
    for one in every:
        try:
            assert one.wait(PATIENCE).status in (0, -errno.ENODEV, -errno.ESHUTDOWN, -errno.EPROTO)
        except ChannelLost:
            break  # the device is gone from the exporter, and its importer with it
    assert "unplug" in said(host, "^unplug")
    assert list_devices(("127.0.0.1", host.forward(3240))) == []


@both
def test_unplugged_when_nothing_is_going_on(loopback: Parts) -> None:
    device, _importer, host = loopback
    device.unplug()
    assert "unplug" in said(host, "^unplug")
    assert list_devices(("127.0.0.1", host.forward(3240))) == []


def command(operation: bytes, length: int) -> bytes:
    """A command that brings data: its block wrapper of 31 bytes (BOT 1.0, 5.1)."""
    head = b"USBC" + b"tag!" + length.to_bytes(4, "little")
    return head + bytes((0x80, 0, len(operation))) + operation.ljust(16, b"\0")


def test_a_stick_of_another_maker(host: Guest, content: bytes) -> None:
    there = "until [ -b /dev/sda ]; do usleep 20000; done"
    host.run(there, timeout=60)
    with exported(host, 0x46F4, 0x0001) as importer:
        assert host.run("test -b /dev/sda", check=False).ok  # its driver has it, until …
        assert importer.control(0x00, 9, 1).status == 0
        assert not host.run("test -b /dev/sda", check=False).ok
        descriptor = bytes(importer.control(0x80, 6, 0x0100, data=18).data)
        assert descriptor[8:12] == bytes.fromhex("f4460100")
        inquiry = bytes((0x12, 0, 0, 0, 36, 0))
        assert importer.write(2, command(inquiry, 36)).actual == 31
        assert bytes(importer.read(0x81, 36).data)[8:16] == b"QEMU    "
        assert bytes(importer.read(0x81, 13).data) == b"USBStag!" + bytes(5)
        read = bytes((0x28, 0, 0, 0, 0, 2, 0, 0, 8, 0))
        assert importer.write(2, command(read, 4096)).actual == 31
        assert bytes(importer.read(0x81, 4096).data) == content[1024 : 1024 + 4096]
        assert bytes(importer.read(0x81, 13).data) == b"USBStag!" + bytes(5)
        # Not even when it is left unconfigured …
        assert importer.control(0x00, 9, 0).status == 0
    # … and gets it back when the importer is gone.
    host.run(there, timeout=PATIENCE)
