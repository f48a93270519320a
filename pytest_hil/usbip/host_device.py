"""A device of this host: which one is meant, what it says of itself, what is said if it is missing.

For every library that passes devices through.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pytest_hil.errors import InfrastructureError, NotThere
from pytest_hil.usbip.descriptors import Configuration, DeviceDescriptor
from pytest_hil.usbip.messages import Device, Direction, Interface, Speed
from pytest_hil.usbip.urb import TransferType

_RULES = "/etc/udev/rules.d/70-pytest-hil.rules"

# libusb's numbers (libusb_speed), which are not the kernel's.
SPEEDS = {1: Speed.LOW, 2: Speed.FULL, 3: Speed.HIGH, 4: Speed.SUPER, 5: Speed.SUPER_PLUS}

SET_CONFIGURATION, SET_INTERFACE, CLEAR_FEATURE = (0x00, 9), (0x01, 11), (0x02, 1)


@dataclass(frozen=True, slots=True)
class HostDevice:
    """A device as a library has it. ``serial`` reads its number, None if it cannot."""

    bus: int
    ports: tuple[int, ...]
    vendor_id: int
    product_id: int
    serial: Callable[[], str | None]
    device: Any

    @property
    def path(self) -> str:
        """As in sysfs: "1-2.3"; "usb1" is the bus's own hub."""
        ports = ".".join(map(str, self.ports))
        return f"{self.bus}-{ports}" if ports else f"usb{self.bus}"

    def __str__(self) -> str:
        return f"{self.path}  {self.vendor_id:04x}:{self.product_id:04x}"


def choose(
    every: Sequence[HostDevice],
    *,
    vendor_id: int | None = None,
    product_id: int | None = None,
    serial: str | None = None,
    bus_path: str | None = None,
) -> HostDevice:
    """The one device that fits. Raises NotThere when none does, or several do."""
    found = [
        one
        for one in every
        if vendor_id in (None, one.vendor_id)
        and product_id in (None, one.product_id)
        and bus_path in (None, one.path)
        and (serial is None or one.serial() == serial)
    ]
    if len(found) == 1:
        return found[0]
    wanted = {
        "vendor_id": None if vendor_id is None else f"{vendor_id:#06x}",
        "product_id": None if product_id is None else f"{product_id:#06x}",
        "serial": serial,
        "bus_path": bus_path,
    }
    text = ", ".join(f"{key}={value}" for key, value in wanted.items() if value is not None)
    there = "".join(f"\n    {one}" for one in found or every) or " none"
    if found:
        raise NotThere(
            f"several USB devices are {text or 'there'}:{there}",
            mend="say which: by serial= or bus_path=",
        )
    raise NotThere(f"no USB device is {text}; there are:{there}")


def not_permitted(who: object, vendor_id: int, product_id: int) -> InfrastructureError:
    """What to raise when this user may not use a device: with the rule that is missing."""
    rule = (
        f'SUBSYSTEM=="usb", ATTR{{idVendor}}=="{vendor_id:04x}", '
        f'ATTR{{idProduct}}=="{product_id:04x}", MODE="0660", TAG+="uaccess"'
    )
    return InfrastructureError(
        f"this user may not use {who!r}",
        mend=f"write into {_RULES}:\n    {rule}\n  then: udevadm control --reload && "
        "udevadm trigger, and plug it in again",
    )


def describe(
    device: DeviceDescriptor, configurations: Sequence[Configuration], *, speed: int, value: int
) -> Device:
    """As an exporter offers it. ``speed`` is libusb's number, ``value`` its configuration's."""
    first = [one for one in configurations[0].interfaces if one.alternate == 0]
    triples = (Interface(one.interface_class, one.subclass, one.protocol) for one in first)
    return Device(
        busid="",
        busnum=0,
        devnum=0,
        speed=SPEEDS.get(speed, Speed.FULL),
        vendor_id=device.vendor_id,
        product_id=device.product_id,
        bcd_device=device.release,
        device_class=device.device_class,
        subclass=device.subclass,
        protocol=device.protocol,
        configuration_value=value,
        configurations=len(configurations),
        interface_count=len(first),
        interfaces=tuple(triples),
    )


def transfer_type(
    configurations: Iterable[Configuration],
    alternates: Mapping[int, int],
    endpoint: int,
    direction: Direction,
) -> TransferType | None:
    """What kind an endpoint is while the interfaces are set like this (0 unless said)."""
    if endpoint == 0:
        return TransferType.CONTROL
    wanted = endpoint, direction
    for configuration in configurations:
        for interface in configuration.interfaces:
            if interface.alternate == alternates.get(interface.number, 0):
                for one in interface.endpoints:
                    if (one.number, one.direction) == wanted:
                        return one.type
    return None
