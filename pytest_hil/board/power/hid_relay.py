"""USB relay boards that are HID devices, "USBRelay1" to "USBRelay8" of www.dcttech.com.

A feature report of eight bytes: written, it is a command and a channel; read, it is the board's
five letters of id, two bytes more, and a bit for each relay (as in usbrelay's libusbrelay.c).
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_hil.board.power import host_usb
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import count, key
from pytest_hil.config.values import BadValue, shown
from pytest_hil.errors import InfrastructureError, visible
from pytest_hil.usbip.host_device import HostDevice

# V-USB's numbers for any HID that is neither a mouse nor a keyboard: the product's name decides.
_VENDOR, _PRODUCT = 0x16C0, 0x05DF
_NAME = re.compile(r"USBRelay([0-9]+)", re.ASCII)

_GET_REPORT, _SET_REPORT = 0x01, 0x09
_FEATURE = 0x0300
_ON, _OFF = 0xFF, 0xFD
_SIZE = 8


def board_id(value: object) -> str:
    found = values.text(value)
    if len(found) != 5 or not found.isascii():
        raise BadValue(
            f"{shown(found)} is no board's id", "five characters; `usbrelay` prints them: BITFT_1=0"
        )
    return found


@dataclass(frozen=True, slots=True)
class HidRelayOptions:
    """Keys of a ``power`` table with ``driver = "hid-relay"``."""

    channel: int = key(count(1, 8), default=1, help="the number of the relay, from 1")
    serial: str | None = key(
        board_id,
        default=None,
        help="the board's id, five characters that `usbrelay` prints; needed where there are "
        "several boards",
    )


@dataclass(frozen=True, slots=True)
class _Board:
    device: HostDevice
    serial: str
    channels: int
    # A bit for each relay that is on.
    state: int


class HidRelay:
    """One relay of such a board. ``backend`` is another one of pyusb's."""

    Options: ClassVar[type] = HidRelayOptions

    def __init__(self, options: HidRelayOptions, *, backend: Any = None) -> None:
        self._options = options
        self._backend = backend

    def on(self) -> None:
        """Raises PowerError, ToolMissing, and InfrastructureError when it may or can not."""
        self._command(_ON)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._command(_OFF)

    def read(self) -> bool:
        """What the board says of the relay. Raises as :meth:`on`."""
        return bool(self._board().state >> (self._options.channel - 1) & 1)

    def close(self) -> None:
        """It is not kept open."""

    def _command(self, command: int) -> None:
        report = bytes([command, self._options.channel]).ljust(_SIZE, b"\0")
        with _using(self._board().device) as device:
            device.ctrl_transfer(0x21, _SET_REPORT, _FEATURE, 0, report, host_usb.PATIENCE)

    def _board(self) -> _Board:
        wanted = self._options.serial
        there = list(self._boards())
        found = [one for one in there if wanted in (None, one.serial)]
        names = "".join(f"\n    {visible(one.serial)} at {one.device}" for one in there) or " none"
        if not found:
            which = f"board {wanted}" if wanted else "board"
            raise PowerError(
                f"there is no USB relay {which}; there are:{names}", mend="is it plugged in?"
            )
        if len(found) > 1:
            raise InfrastructureError(
                f"there are {len(found)} USB relay boards that may be meant:{names}",
                mend='say which: serial = "…"; if they have the same, unplug one',
            )
        if self._options.channel > found[0].channels:
            raise InfrastructureError(
                f"the USB relay board {found[0].serial} has no channel {self._options.channel}",
                mend=f"write a channel from 1 to {found[0].channels}",
            )
        return found[0]

    def _boards(self) -> Iterator[_Board]:
        for one in host_usb.devices(self._backend, idVendor=_VENDOR, idProduct=_PRODUCT):
            with _using(one) as device:
                name = _NAME.fullmatch(host_usb.text(device, device.iProduct))
                if name is None:
                    continue
                # The boards' report has no number.
                answer = device.ctrl_transfer(
                    0xA1, _GET_REPORT, _FEATURE, 0, _SIZE, host_usb.PATIENCE
                )
            report = bytes(answer)
            if len(report) < _SIZE:
                raise PowerError(
                    f"the USB relay board {one} answered {len(report)} bytes instead of {_SIZE}"
                )
            serial = report[:5].rstrip(b"\0").decode("ascii", "replace")
            yield _Board(one, serial, int(name[1]), report[7])


@contextlib.contextmanager
def _using(one: HostDevice) -> Iterator[Any]:
    """The board, without this host's HID driver meanwhile."""
    import usb.core

    with host_usb.using(one) as device:
        with_driver = False
        # Where there are no kernel drivers, nobody has to let go.
        with contextlib.suppress(NotImplementedError):
            with_driver = device.is_kernel_driver_active(0)
        if with_driver:
            device.detach_kernel_driver(0)
        try:
            yield device
        finally:
            if with_driver:
                import usb.util

                usb.util.release_interface(device, 0)
                # It may have been pulled out meanwhile.
                with contextlib.suppress(usb.core.USBError):
                    device.attach_kernel_driver(0)
