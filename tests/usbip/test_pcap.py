"""Captures, read by tshark: somebody else's idea of the format."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.messages import IsoPacket
from pytest_hil.usbip.pcap import Capture
from pytest_hil.usbip.urb import Exportable
from pytest_hil.usbip.virtual.cdc_acm import SerialPort
from pytest_hil.usbip.virtual.composite import Composite
from pytest_hil.usbip.virtual.hid import Keyboard, Mouse
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from pytest_hil.usbip.virtual.vendor import Loopback


def tshark(path: Path, *arguments: str) -> list[str]:
    """The lines that it prints; what it warns of is a failure."""
    done = subprocess.run(
        ["tshark", "-r", str(path), *arguments], capture_output=True, text=True, timeout=60
    )
    warnings = [line for line in done.stderr.splitlines() if "dangerous" not in line]
    assert (done.returncode, [line for line in warnings if line.strip()]) == (0, [])
    return done.stdout.splitlines()


def fields(path: Path, *names: str) -> list[tuple[str, ...]]:
    wanted = [part for name in names for part in ("-e", name)]
    return [tuple(line.split("\t")) for line in tshark(path, "-T", "fields", *wanted)]


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found:
        yield found


def enumerate_it(device: Importer) -> None:
    """What a host's kernel asks first."""
    device.control(0x80, 6, 0x0100, 0, 18)
    head = device.control(0x80, 6, 0x0200, 0, 9).data
    device.control(0x80, 6, 0x0200, 0, head[2] | head[3] << 8)
    for index in (0, 1, 2):
        device.control(0x80, 6, 0x0300 | index, 0x0409, 255)
    device.control(0x00, 9, 1)


@pytest.mark.parametrize(
    "make",
    [
        Keyboard,
        Mouse,
        SerialPort,
        Loopback,
        lambda: MassStorage(2**20),
        lambda: Composite(Keyboard(), SerialPort(), Loopback()),
    ],
    ids=["keyboard", "mouse", "serial", "loopback", "stick", "composite"],
)
def test_how_devices_are_enumerated(
    exporter: Exporter, tmp_path: Path, make: type[Exportable]
) -> None:
    capture = Capture(tmp_path / "usb.pcap")
    device = make()
    exporter.plug(device, observer=capture)
    with Importer(exporter.address, "1-1") as importer:
        enumerate_it(importer)
    capture.close()
    assert tshark(capture.path, "-Y", "_ws.malformed") == []
    ids = {row for row in fields(capture.path, "usb.idVendor", "usb.idProduct") if any(row)}
    told = device.describe()
    assert ids == {(f"0x{told.vendor_id:04x}", f"0x{told.product_id:04x}")}
    configured = fields(capture.path, "usb.bNumInterfaces")
    assert str(told.interface_count) in {row[0] for row in configured}


def test_what_each_record_says(exporter: Exporter, tmp_path: Path) -> None:
    capture = Capture(tmp_path / "usb.pcap")
    exporter.plug(Loopback(), observer=capture)
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        device.write(1, b"bulk data")
        device.read(1, 64)
        device.write(2, b"interrupt")
        device.control(0xC0, 0x77, data=8)
        waiting = device.submit(0x81, length=8)
        waiting.cancel()
    capture.close()
    rows = fields(
        capture.path,
        "usb.urb_type",
        "usb.transfer_type",
        "usb.endpoint_address",
        "usb.urb_status",
        "usb.urb_len",
        "usb.data_len",
        "usb.capdata",
    )
    assert rows[2:] == [
        ("'S'", "0x03", "0x01", "-115", "9", "9", b"bulk data".hex()),
        ("'C'", "0x03", "0x01", "0", "9", "0", ""),
        ("'S'", "0x03", "0x81", "-115", "64", "0", ""),
        ("'C'", "0x03", "0x81", "0", "9", "9", b"bulk data".hex()),
        ("'S'", "0x01", "0x02", "-115", "9", "9", b"interrupt".hex()),
        ("'C'", "0x01", "0x02", "0", "9", "0", ""),
        ("'S'", "0x02", "0x80", "-115", "8", "0", ""),
        ("'C'", "0x02", "0x80", "-32", "0", "0", ""),
        ("'S'", "0x03", "0x81", "-115", "8", "0", ""),
        ("'C'", "0x03", "0x81", "-104", "0", "0", ""),
    ]
    assert tshark(capture.path, "-Y", "_ws.malformed") == []


def test_isochronous_packets(exporter: Exporter, tmp_path: Path) -> None:
    capture = Capture(tmp_path / "usb.pcap")
    exporter.plug(Loopback(), observer=capture)
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        device.control(1, 11, 1)
        device.submit(0x03, data=b"abcde", iso=[IsoPacket(0, 3), IsoPacket(3, 2)]).wait(10)
        space = [IsoPacket(192 * n, 192) for n in range(3)]
        device.submit(0x83, length=576, iso=space).wait(10)
    capture.close()
    assert tshark(capture.path, "-Y", "_ws.malformed") == []
    names = ("usb.iso.numdesc", "usb.iso.iso_off", "usb.iso.iso_len", "usb.iso.data")
    rows = [row for row in fields(capture.path, *names) if row[0] not in ("", "0")]
    assert rows[0] == ("2,2", "0,3", "3,2", "616263,6465")
    assert rows[3][:3] == ("3,3", "0,3,5", "3,2,0")
    assert rows[3][3] == "616263,6465"


def test_a_capture_is_bounded(exporter: Exporter, tmp_path: Path) -> None:
    capture = Capture(tmp_path / "usb.pcap", snaplen=100, limit=4096)
    exporter.plug(Loopback(), observer=capture)
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        for _ in range(30):
            device.write(4, bytes(1000))
    assert capture.truncated
    assert (tmp_path / "usb.pcap").stat().st_size <= 4096
    lengths = fields(capture.path, "frame.len", "frame.cap_len")
    assert ("1064", "164") in lengths
    capture.close()
    capture.close()


def test_a_killed_run_has_what_was_said(exporter: Exporter, tmp_path: Path) -> None:
    capture = Capture(tmp_path / "usb.pcap")
    exporter.plug(Loopback(), observer=capture)
    with Importer(exporter.address, "1-1") as device:
        device.control(0, 9, 1)
        # Nobody closed it: this is what is on disk in the middle of it all.
        assert len(tshark(capture.path)) == 2
    capture.close()


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Capture(tmp_path / "gone" / "usb.pcap")
