"""USB devices of this host for the drivers that speak to one through pyusb."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

from pytest_hil.board.power.switch import PowerError
from pytest_hil.errors import HostLacks, ToolMissing, visible
from pytest_hil.usbip import host_device
from pytest_hil.usbip.host_device import HostDevice

# Milliseconds for one control transfer.
PATIENCE = 5000


def devices(backend: Any = None, **wanted: int) -> list[HostDevice]:
    """The devices whose descriptors have these values (``idVendor=0x16C0``), by their places.

    ``backend``: another one of pyusb's. Raises ToolMissing, PowerError.
    """
    try:
        import usb.core
    except ImportError:
        raise HostLacks(
            "pyusb is not installed", mend="install it: pip install 'pytest-hil[usb]'"
        ) from None
    try:
        found = [_known(one) for one in usb.core.find(True, backend=backend, **wanted)]
    except usb.core.NoBackendError:
        raise ToolMissing("libusb", package="libusb-1.0-0") from None
    except usb.core.USBError as error:
        raise PowerError(f"the USB devices of this host cannot be listed: {error}") from error
    return sorted(found, key=lambda one: (one.bus, one.ports))


@contextlib.contextmanager
def using(device: HostDevice) -> Iterator[Any]:
    """pyusb's device for some transfers; then it is closed.

    pyusb's errors become PowerError, or InfrastructureError when this user may not use it.
    """
    import usb.core
    import usb.util

    try:
        yield device.device
    except usb.core.USBError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            rule = host_device.not_permitted(device, device.vendor_id, device.product_id)
            raise HostLacks(
                f"this user may not use the USB device {device}", mend=rule.mend
            ) from error
        raise PowerError(f"the USB device {device}: {error}") from error
    finally:
        usb.util.dispose_resources(device.device)


def text(device: Any, index: int) -> str:
    """One of its strings; "" if it has none. Raises what pyusb raises when it may not be used."""
    import usb.util

    if not index:
        return ""
    # By itself: pyusb's own way makes "no strings" of every error, "not permitted" too.
    languages = usb.util.get_langids(device)
    return usb.util.get_string(device, index, languages[0]) or "" if languages else ""


def listed(there: list[HostDevice]) -> str:
    """The devices, each on a line of its own."""
    return "".join(f"\n    {visible(str(one))}" for one in there) or " none"


def _known(one: Any) -> HostDevice:
    ports = tuple(one.port_numbers or ())
    return HostDevice(
        one.bus, ports, one.idVendor, one.idProduct, lambda: text(one, one.iSerialNumber), one
    )
