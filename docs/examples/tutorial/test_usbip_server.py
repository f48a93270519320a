"""The tutorial's server under test. Yours takes the place of the exporter in ``usbip_server``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pytest_hil import Target
from pytest_hil.plugin.usbip_conformance import Server, test_usbip_conformance
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.vendor import Loopback

__all__ = ["test_usbip_conformance"]


@pytest.fixture(scope="module")
def usbip_server() -> Iterator[Server]:
    # Here your server is started: a process, a board, firmware on your desk.
    with Exporter() as exporter:
        plugged = exporter.plug(Loopback())
        yield (*exporter.address, plugged.busid)


def test_linux_takes_it(hil: Target, usbip_server: Server) -> None:
    host, port, busid = usbip_server
    with hil.usb.attach_remote(f"{host}:{port}", busid) as attached:
        where = f"/sys/bus/usb/devices/{attached.guest_busid}"
        assert hil.run(f"cat {where}/idVendor {where}/idProduct").stdout == "1209\n0001\n"
    assert "Oops" not in hil.run("dmesg").stdout
