"""Power by a hub's port: real pyusb code on hubs that are Python objects."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.board.power.usb_hub import UsbHub, UsbHubOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError, ToolMissing
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.virtual.hid import Keyboard
from tests.rig.usb_hub import GANGED, NOTHING, SuperSpeedHub, VirtualHub

usb_core = pytest.importorskip("usb.core")

from pytest_hil.usbip.pyusb_backend import Backend, pyusb  # noqa: E402

BOX, OTHER_BOX = bytes(range(16)), bytes(range(16, 32))


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found, pyusb(found):
        found.plug(Keyboard())
        yield found


def driver(hub: str = "2109:2811", port: int = 2, **options: Any) -> UsbHub:
    return UsbHub(UsbHubOptions(hub, port, **options))


def test_off_and_on(exporter: Exporter) -> None:
    hub = VirtualHub()
    plugged = exporter.plug(hub)
    one = driver()
    assert one.read() is True
    one.off()
    assert hub.power == {1: True, 2: False, 3: True, 4: True}
    assert one.read() is False
    one.on()
    assert hub.power[2] is True
    assert one.read() is True
    assert hub.asked == [("off", 2), ("on", 2)]
    one.close()
    one.close()
    plugged.wait_released(5)  # others may use it
    hub.check()


@pytest.mark.parametrize("hub", ["1-3", "2109:2811", "2109:2811:A1", "2109:2811:a1"])
def test_which_hub(exporter: Exporter, hub: str) -> None:
    exporter.plug(VirtualHub(serial="A1"))
    one = driver(hub)
    if hub.endswith("a1"):
        with pytest.raises(PowerError, match=r"there is no USB hub 2109:2811:a1; there are:\n.*1-"):
            one.off()
    else:
        assert one.read() is True


def test_by_its_place(exporter: Exporter) -> None:
    """The backend says the device's number for its port."""
    hubs = [VirtualHub(), VirtualHub()]
    places = [f"1-{exporter.plug(hub).description.devnum}" for hub in hubs]
    driver(places[1]).off()
    assert [hub.power[2] for hub in hubs] == [True, False]


def test_none_and_several(exporter: Exporter) -> None:
    with pytest.raises(PowerError, match="there is no USB hub 2109:2811; there are: none"):
        driver().off()
    hubs = [VirtualHub(serial="A"), VirtualHub(serial="B")]
    for hub in hubs:
        exporter.plug(hub)
    with pytest.raises(InfrastructureError, match=r"is 2 USB hubs:\n.*\n") as caught:
        driver().off()
    assert "SERIAL" in caught.value.mend
    assert not isinstance(caught.value, PowerError), "it would be tried again"
    driver("2109:2811:B").off()
    assert [hub.power[2] for hub in hubs] == [True, False]


def test_a_keyboard_is_no_hub(exporter: Exporter) -> None:
    with pytest.raises(PowerError, match="there is no USB hub 1209:0002"):
        driver("1209:0002").off()


def test_both_halves_of_a_usb3_hub(exporter: Exporter) -> None:
    halves = [VirtualHub(container=BOX), SuperSpeedHub(container=BOX)]
    stranger = SuperSpeedHub(container=OTHER_BOX)
    for hub in (*halves, stranger):
        exporter.plug(hub)
    one = driver()
    one.off()
    assert [hub.power[2] for hub in (*halves, stranger)] == [False, False, True]
    assert one.read() is False
    for half in halves:  # while one of them gives power, there is power
        half.power[2] = True
        assert one.read() is True
        half.power[2] = False
    one.on()
    assert [hub.power[2] for hub in halves] == [True, True]
    assert stranger.asked == []
    # Named by its other half it is the same hub.
    driver("1-4").off()
    assert [hub.power[2] for hub in halves] == [False, False]
    driver("1-4", halves="this").on()
    assert [hub.power[2] for hub in halves] == [False, True]


def test_the_usb3_half_alone(exporter: Exporter) -> None:
    hub = SuperSpeedHub(container=BOX)
    exporter.plug(hub)
    one = driver("2109:8110")
    one.off()
    assert one.read() is False
    assert hub.power[2] is False


def test_boxes_that_all_have_the_same_id(exporter: Exporter) -> None:
    for hub in (VirtualHub(container=BOX), *(SuperSpeedHub(container=BOX) for _ in range(2))):
        exporter.plug(hub)
    with pytest.raises(InfrastructureError, match="may be each of:") as caught:
        driver().off()
    assert 'halves = "this"' in caught.value.mend
    driver(halves="this").off()


@pytest.mark.parametrize(
    ("switching", "why"),
    [(GANGED, "switches all its ports together only"), (NOTHING, "cannot switch its ports")],
)
def test_no_switch_for_each_port(exporter: Exporter, switching: int, why: str) -> None:
    hub = VirtualHub(switching=switching)
    exporter.plug(hub)
    with pytest.raises(InfrastructureError, match=why) as caught:
        driver().off()
    assert f"{switching | 0x88:#06x}" in caught.value.message
    assert "uhubctl" in caught.value.mend
    assert hub.asked == []
    driver(force=True).off()
    assert hub.power[2] is False


def test_the_other_half_has_none(exporter: Exporter) -> None:
    exporter.plug(VirtualHub(container=BOX))
    exporter.plug(SuperSpeedHub(container=BOX, switching=GANGED))
    with pytest.raises(InfrastructureError, match=r"2109:8110 \(USB 3, 4 ports\) switches all"):
        driver().off()
    driver(halves="this").off()


def test_the_only_port_is_each_port(exporter: Exporter) -> None:
    hub = VirtualHub(1, switching=GANGED)
    exporter.plug(hub)
    driver(port=1).off()
    assert hub.power == {1: False}


def test_no_such_port(exporter: Exporter) -> None:
    exporter.plug(VirtualHub(3))
    with pytest.raises(InfrastructureError, match="has no port 4") as caught:
        driver(port=4).off()
    assert caught.value.mend == "write a port from 1 to 3"


def test_a_port_that_takes_its_time(exporter: Exporter) -> None:
    hub = VirtualHub()
    hub.lag = 3
    exporter.plug(hub)
    one = driver()
    one.off()
    assert one.read() is False
    assert hub.lag == 0


def test_a_switch_that_is_stuck(exporter: Exporter) -> None:
    hub = VirtualHub()
    hub.stuck = True
    exporter.plug(hub)
    switch = Switch(driver(), SwitchOptions(retries=0), name="rpi4")
    with pytest.raises(PowerError, match="rpi4 was told off and says on"):
        switch.off()


def test_a_status_that_is_too_short(exporter: Exporter) -> None:
    hub = VirtualHub()
    hub.garbage = b"\x01"
    exporter.plug(hub)
    with pytest.raises(PowerError, match="answered 1 bytes instead of a port's status"):
        driver().read()


def test_no_hub_though_it_says_so(exporter: Exporter) -> None:
    hub = VirtualHub()
    hub.kind = 0x2A  # it stalls when it is asked as a USB 2 hub
    exporter.plug(hub)
    with pytest.raises(PowerError, match="Pipe error"):
        driver().off()


def test_it_is_pulled_out_and_comes_back(exporter: Exporter) -> None:
    one = driver()
    with exporter.plug(VirtualHub()):
        one.off()
    with pytest.raises(PowerError, match="there is no USB hub"):
        one.on()
    exporter.plug(VirtualHub())
    one.on()


def test_somebody_else_has_it(exporter: Exporter) -> None:
    plugged = exporter.plug(VirtualHub())
    with Importer(exporter.address, plugged.busid), pytest.raises(PowerError, match="busy"):
        driver("1-3").off()


class Forbidding(Backend):
    """As libusb is where this user may not open a device."""

    def open_device(self, dev: Any) -> NoReturn:
        raise usb_core.USBError("Access denied (insufficient permissions)", -3, errno.EACCES)


@pytest.mark.parametrize("hub", ["2109:2811", "2109:2811:A1"])
def test_not_permitted(hub: str) -> None:
    with Exporter() as exporter:
        exporter.plug(VirtualHub(serial="A1"))
        backend = Forbidding([exporter.address])
        with pytest.raises(InfrastructureError, match="may not use the USB device 1-") as caught:
            UsbHub(UsbHubOptions(hub, 1), backend=backend).off()
        backend.close()
    assert 'ATTR{idVendor}=="2109", ATTR{idProduct}=="2811"' in caught.value.mend
    assert not isinstance(caught.value, PowerError), "it would be tried again"


def test_without_libusb(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("libusb1", "libusb0", "openusb"):
        monkeypatch.setattr(f"usb.backend.{name}.get_backend", lambda *_a, **_k: None)
    with pytest.raises(ToolMissing, match="libusb-1"):
        driver().off()


def test_without_pyusb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "usb.core", None)
    with pytest.raises(InfrastructureError, match="pyusb is not installed") as caught:
        driver().off()
    assert "pytest-hil[usb]" in caught.value.mend


@pytest.mark.parametrize("hub", ["1-1.4", "usb1", "2109:2811", "05E3:0610:0 1"])
def test_names(hub: str) -> None:
    written = {"hub": hub, "port": 1}
    section = Section("boards.toml", "[target.dut.power]", "usb-hub", written, Path())
    assert section.options(UsbHubOptions) == UsbHubOptions(hub, 1)


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"hub": "1.4", "port": 1}, "is no USB hub"),
        ({"hub": "2109", "port": 1}, "is no USB hub"),
        ({"hub": "1-1", "port": 0}, "out of range"),
        ({"hub": "1-1"}, "missing"),
        ({"hub": "1-1", "port": 1, "halves": "one"}, "allowed here"),
    ],
)
def test_wrong_names(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "usb-hub", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(UsbHubOptions)
