"""HID relay boards: real pyusb code on a board that is a Python object."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from pytest_hil.board.power.hid_relay import HidRelay, HidRelayOptions
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.hid import Keyboard
from tests.rig.hid_relay import RelayBoard

usb_core = pytest.importorskip("usb.core")

from pytest_hil.usbip.pyusb_backend import Backend, pyusb  # noqa: E402


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found, pyusb(found):
        found.plug(Keyboard())
        yield found


def driver(channel: int = 2, serial: str | None = None) -> HidRelay:
    return HidRelay(HidRelayOptions(channel, serial))


def test_on_and_off(exporter: Exporter) -> None:
    board = RelayBoard()
    plugged = exporter.plug(board)
    one, two = driver(1), driver(2)
    two.on()
    assert board.on == {2}
    assert (one.read(), two.read()) == (False, True)
    one.on()
    two.off()
    assert board.on == {1}
    assert (one.read(), two.read()) == (True, False)
    assert board.commands == [
        b"\xff\x02\0\0\0\0\0\0",
        b"\xff\x01\0\0\0\0\0\0",
        b"\xfd\x02\0\0\0\0\0\0",
    ]
    two.close()
    two.close()
    plugged.wait_released(5)
    board.check()


def test_the_eighth_channel(exporter: Exporter) -> None:
    board = RelayBoard(8)
    exporter.plug(board)
    driver(8).on()
    assert board.on == {8}
    assert driver(8).read() is True
    assert driver(7).read() is False


def test_which_board(exporter: Exporter) -> None:
    boards = [RelayBoard(board="AAAAA"), RelayBoard(board="BBBBB")]
    for board in boards:
        exporter.plug(board)
    driver(1, "BBBBB").on()
    assert [board.on for board in boards] == [set(), {1}]
    with pytest.raises(InfrastructureError, match=r"2 USB relay boards .*\n.*AAAAA at 1-") as e:
        driver(1).on()
    assert not isinstance(e.value, PowerError)
    with pytest.raises(PowerError, match=r"no USB relay board CCCCC; there are:\n +AAAAA at 1-"):
        driver(1, "CCCCC").on()


def test_no_board(exporter: Exporter) -> None:
    with pytest.raises(PowerError, match="there is no USB relay board; there are: none"):
        driver().on()


def test_another_device_with_the_same_numbers(exporter: Exporter) -> None:
    """16c0:05df is anybody's who uses V-USB; HIDRelay is another protocol."""
    others = [RelayBoard(product="Temperature"), RelayBoard(product="HIDRelay")]
    for other in others:
        exporter.plug(other)
    with pytest.raises(PowerError, match="there is no USB relay board"):
        driver().on()
    board = RelayBoard()
    exporter.plug(board)
    driver().on()
    assert board.on == {2}
    assert not others[0].commands + others[1].commands


def test_no_such_channel(exporter: Exporter) -> None:
    board = RelayBoard(1)
    exporter.plug(board)
    with pytest.raises(InfrastructureError, match="BITFT has no channel 2") as caught:
        driver().on()
    assert caught.value.mend == "write a channel from 1 to 1"
    assert not board.commands


def test_a_report_that_is_too_short(exporter: Exporter) -> None:
    board = RelayBoard()
    board.garbage = b"BIT"
    exporter.plug(board)
    with pytest.raises(PowerError, match="answered 3 bytes instead of 8"):
        driver().read()


def test_an_id_of_garbage_is_shown_not_done(exporter: Exporter) -> None:
    board = RelayBoard()
    board.garbage = b"\x1b[2J\xff\0\0\0"
    exporter.plug(board)
    with pytest.raises(PowerError) as caught:
        driver(1, "BITFT").read()
    assert "\x1b" not in str(caught.value)


def test_a_relay_that_is_stuck(exporter: Exporter) -> None:
    board = RelayBoard()
    board.stuck = True
    exporter.plug(board)
    with pytest.raises(PowerError, match="dut was told on and says off"):
        Switch(driver(), SwitchOptions(retries=0), name="dut").on()


def test_it_is_pulled_out_and_comes_back(exporter: Exporter) -> None:
    one = driver()
    with exporter.plug(RelayBoard()):
        one.on()
    with pytest.raises(PowerError, match="there is no"):
        one.off()
    exporter.plug(RelayBoard())
    one.off()


class WithKernelDriver(Backend):
    """As Linux is: usbhid has every HID, and nobody else can claim its interface meanwhile."""

    def __init__(self, addresses: list[tuple[str, int]]) -> None:
        super().__init__(addresses)
        self.bound = True
        self.told: list[str] = []
        self.claimed = False

    def is_kernel_driver_active(self, dev_handle: Any, intf: int) -> bool:
        return self.bound

    def detach_kernel_driver(self, dev_handle: Any, intf: int) -> None:
        self.told.append("detach")
        self.bound = False

    def attach_kernel_driver(self, dev_handle: Any, intf: int) -> None:
        assert not self.claimed
        self.told.append("attach")
        self.bound = True

    def claim_interface(self, dev_handle: Any, intf: int) -> None:
        if self.bound:
            raise usb_core.USBError("Resource busy", -6, errno.EBUSY)
        self.claimed = True

    def release_interface(self, dev_handle: Any, intf: int) -> None:
        self.claimed = False


def test_the_kernels_driver_has_it_back() -> None:
    board = RelayBoard()
    with Exporter() as exporter:
        exporter.plug(board)
        backend = WithKernelDriver([exporter.address])
        one = HidRelay(HidRelayOptions(1), backend=backend)
        one.on()
        assert one.read() is True
        assert backend.bound
        assert backend.told[:2] == ["detach", "attach"]
        board.garbage = b""
        with pytest.raises(PowerError):
            one.read()
        assert backend.bound, "also after an error"
        backend.close()


class Forbidding(Backend):
    """As libusb is where this user may not open a device."""

    def open_device(self, dev: Any) -> NoReturn:
        raise usb_core.USBError("Access denied (insufficient permissions)", -3, errno.EACCES)


def test_not_permitted() -> None:
    with Exporter() as exporter:
        exporter.plug(RelayBoard())
        backend = Forbidding([exporter.address])
        with pytest.raises(InfrastructureError, match="may not use the USB device 1-") as caught:
            HidRelay(HidRelayOptions(1), backend=backend).on()
        backend.close()
    assert 'ATTR{idVendor}=="16c0", ATTR{idProduct}=="05df"' in caught.value.mend


@pytest.mark.parametrize(
    ("written", "wrong"),
    [
        ({"channel": 9}, "out of range"),
        ({"serial": "ABCD"}, "is no board's id"),
        ({"serial": "ABCDé"}, "is no board's id"),
    ],
)
def test_wrong_keys(written: dict[str, object], wrong: str) -> None:
    section = Section("boards.toml", "[target.dut.power]", "hid-relay", written, Path())
    with pytest.raises(ConfigError, match=wrong):
        section.options(HidRelayOptions)
