"""VBUS of one port of a USB hub, by the requests of its class, as uhubctl does it.

USB 2.0, 11.24.2 and table 11-13; USB 3.2, 10.16.2 and table 10-5.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_hil.board.power import host_usb
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import address, count, key, one_of
from pytest_hil.config.values import BadValue, shown
from pytest_hil.errors import InfrastructureError
from pytest_hil.usbip.host_device import HostDevice

_PLACE = re.compile(r"[0-9]+-[0-9]+(?:\.[0-9]+)*|usb[0-9]+", re.ASCII)
_MODEL = re.compile(r"([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", re.ASCII | re.IGNORECASE)

_HUB_CLASS = 9
_GET_STATUS, _CLEAR_FEATURE, _SET_FEATURE, _GET_DESCRIPTOR = 0, 1, 3, 6
_PORT_POWER = 8
_BOS, _CAPABILITY, _CONTAINER_ID = 0x0F, 0x10, 4

# Seconds for a port to say what it was told: of a USB 3 hub it takes 0.15 s. No event tells of it.
_SETTLE = 1.0


def hub(value: object) -> str:
    """A hub's place ("1-1.4", "usb1") or what it is ("2109:2811", "2109:2811:SERIAL")."""
    found = values.text(value)
    if not _PLACE.fullmatch(found) and not _MODEL.fullmatch(found):
        raise BadValue(
            f"{shown(found)} is no USB hub",
            'write "1-1.4" (bus and ports), "usb1" (a bus\'s own hub) or "2109:2811[:SERIAL]"',
        )
    return found


@dataclass(frozen=True, slots=True)
class UsbHubOptions:
    """Keys of a ``power`` table with ``driver = "usb-hub"``."""

    hub: str = key(
        hub,
        help='"1-1.4" (bus and ports, as in /sys/bus/usb/devices), "usb1" (a bus\'s own hub), '
        'or "VID:PID[:SERIAL]"',
    )
    port: int = key(count(1, 255), help="the number of the hub's port, from 1")
    halves: str = key(
        one_of("both", "this"),
        default="both",
        help="a USB 3 hub is two hubs in one, and a port has power until both have switched it "
        'off: "both" switches the other half too, "this" only the one that `hub` names',
    )
    force: bool = key(
        values.boolean,
        default=False,
        help="switch though the hub says that it has no switch for each port",
    )
    usbip: tuple[str, int] | None = key(
        address,
        default=None,
        help='the hub is not at this host, but exported there by USB/IP: "lab:3240"',
    )


@dataclass(frozen=True, slots=True)
class _Half:
    """One hub: a whole USB 2 one, or the half of a USB 3 one."""

    device: HostDevice
    superspeed: bool
    ports: int
    # wHubCharacteristics.
    characteristics: int
    container: bytes

    @property
    def switching(self) -> str:
        """What is wrong with its power switching; "" if each port has a switch of its own."""
        mode = self.characteristics & 3
        if mode == 1 or (mode == 0 and self.ports == 1):
            return ""
        return "switches all its ports together only" if mode == 0 else "cannot switch its ports"

    @property
    def power_bit(self) -> int:
        """Where PORT_POWER is in wPortStatus."""
        return 1 << 9 if self.superspeed else 1 << 8

    def __str__(self) -> str:
        return f"{self.device} ({'USB 3' if self.superspeed else 'USB 2'}, {self.ports} ports)"


class UsbHub:
    """One port of a hub that has a power switch for each. Few have: uhubctl's README lists them.

    The hub is looked for each time, because it may come back at another address. ``backend`` is
    another one of pyusb's.
    """

    Options: ClassVar[type] = UsbHubOptions

    def __init__(self, options: UsbHubOptions, *, backend: Any = None) -> None:
        self._options = options
        self._backend = backend

    def on(self) -> None:
        """Raises PowerError, ToolMissing, and InfrastructureError when it may or can not."""
        self._switch(on=True)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch(on=False)

    def read(self) -> bool:
        """Whether one of its halves says that the port has power. Raises as :meth:`on`."""
        return any(self._has_power(half) for half in self._halves())

    def close(self) -> None:
        """It is not kept open."""

    def _reached(self) -> Any:
        """pyusb's backend for it; None: libusb's."""
        if self._backend is None and self._options.usbip is not None:
            with contextlib.suppress(ImportError):  # no pyusb: who asks next says so
                from pytest_hil.usbip.pyusb_backend import Backend

                self._backend = Backend([self._options.usbip])
        return self._backend

    # --- one half ---

    def _switch(self, *, on: bool) -> None:
        halves = self._halves()
        for half in halves:
            with host_usb.using(half.device) as device:
                request = _SET_FEATURE if on else _CLEAR_FEATURE
                port = self._options.port
                device.ctrl_transfer(0x23, request, _PORT_POWER, port, b"", host_usb.PATIENCE)
        for half in halves:
            until = time.monotonic() + _SETTLE
            while self._has_power(half) is not on and time.monotonic() < until:
                time.sleep(0.02)

    def _has_power(self, half: _Half) -> bool:
        with host_usb.using(half.device) as device:
            status = _asked(device, 0xA3, _GET_STATUS, 0, self._options.port, 4)
        if len(status) < 4:
            raise PowerError(
                f"the USB hub {half} answered {len(status)} bytes instead of a port's status"
            )
        return bool(int.from_bytes(status[:2], "little") & half.power_bit)

    # --- which hub ---

    def _halves(self) -> list[_Half]:
        """The hub that is meant, and its other half where it has one."""
        hubs = host_usb.devices(self._reached(), bDeviceClass=_HUB_CLASS)
        mine = _asked_hub(self._meant(hubs))
        if self._options.port > mine.ports:
            raise InfrastructureError(
                f"the USB hub {mine} has no port {self._options.port}",
                mend=f"write a port from 1 to {mine.ports}",
            )
        halves = [mine]
        if self._options.halves == "both" and mine.container:
            halves += self._other_half(mine, hubs)
        if not self._options.force:
            for half in halves:
                _check_switching(half)
        return halves

    def _meant(self, hubs: list[HostDevice]) -> HostDevice:
        wanted = self._options.hub
        found = [one for one in hubs if _is_meant(one, wanted)]
        if not found:
            raise PowerError(
                f"there is no USB hub {wanted}; there are:{host_usb.listed(hubs)}",
                mend="is it plugged in? `lsusb -t` shows the tree",
            )
        if len(found) > 1:
            raise InfrastructureError(
                f"{wanted} is {len(found)} USB hubs:{host_usb.listed(found)}",
                mend='say which: hub = "VID:PID:SERIAL", or by its place',
            )
        return found[0]

    def _other_half(self, mine: _Half, hubs: list[HostDevice]) -> list[_Half]:
        """The hub of the other speed in the same box, by the box's id (USB 3.2, 11.2)."""
        found = []
        for one in hubs:
            if one.device == mine.device.device:
                continue
            # Somebody else's hub that cannot be asked is not worth an error.
            with contextlib.suppress(InfrastructureError):
                other = _asked_hub(one)
                if (
                    other.superspeed != mine.superspeed
                    and other.container == mine.container
                    and other.ports == mine.ports
                ):
                    found.append(other)
        # Some makers give all their hubs the same id: then the place decides.
        same = [one for one in found if one.device.ports == mine.device.ports]
        found = same if len(found) > 1 and same else found
        if len(found) > 1:
            there = host_usb.listed([one.device for one in found])
            raise InfrastructureError(
                f"the other half of the USB hub {mine} may be each of:{there}",
                mend='write halves = "this", or unplug the other one of this make',
            )
        return found


def _is_meant(one: HostDevice, wanted: str) -> bool:
    if (match := _MODEL.fullmatch(wanted)) is None:
        return one.path == wanted
    if (one.vendor_id, one.product_id) != (int(match[1], 16), int(match[2], 16)):
        return False
    if match[3] is None:
        return True
    with host_usb.using(one):
        return one.serial() == match[3]


def _asked_hub(one: HostDevice) -> _Half:
    """What a hub says of itself. Raises PowerError, InfrastructureError."""
    release: int = one.device.bcdUSB
    kind = 0x2A if release >= 0x0300 else 0x29
    with host_usb.using(one) as device:
        # The mask behind the seventh byte is as long as the hub has ports.
        descriptor = _asked(device, 0xA0, _GET_DESCRIPTOR, kind << 8, 0, 71)
        if len(descriptor) < 7 or descriptor[1] != kind:
            raise PowerError(f"the USB hub {one} answered with no hub's descriptor")
        container = _container(device) if release > 0x0200 else b""
    characteristics = int.from_bytes(descriptor[3:5], "little")
    return _Half(one, kind == 0x2A, descriptor[2], characteristics, container)


def _container(device: Any) -> bytes:
    """The id of the box that a device is in; b"" if it does not say."""
    with _unless_it_has_none():
        head = _asked(device, 0x80, _GET_DESCRIPTOR, _BOS << 8, 0, 5)
        total = int.from_bytes(head[2:4], "little")
        rest = _asked(device, 0x80, _GET_DESCRIPTOR, _BOS << 8, 0, max(total, 5))[5:]
        while len(rest) > 2 and 3 <= rest[0] <= len(rest):
            if (rest[1], rest[2]) == (_CAPABILITY, _CONTAINER_ID) and rest[0] >= 20:
                return rest[4:20]
            rest = rest[rest[0] :]
    return b""


@contextlib.contextmanager
def _unless_it_has_none() -> Iterator[None]:
    """A device that has no such descriptor stalls."""
    import errno

    import usb.core

    try:
        yield
    except usb.core.USBError as error:
        if error.errno != errno.EPIPE:
            raise


def _asked(device: Any, kind: int, request: int, value: int, index: int, length: int) -> bytes:
    answer = device.ctrl_transfer(kind, request, value, index, length, host_usb.PATIENCE)
    return bytes(answer)


def _check_switching(half: _Half) -> None:
    if half.switching:
        raise InfrastructureError(
            f"the USB hub {half} {half.switching} "
            f"(wHubCharacteristics {half.characteristics:#06x}), so one port cannot be cut",
            mend="use a hub of the list in uhubctl's README; if its switches are there all the "
            'same, write force = true, and halves = "this" if only the other half has none',
        )
