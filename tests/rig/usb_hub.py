"""A USB hub as a Python object: it answers the requests of its class, and switches its ports."""

from __future__ import annotations

import dataclasses
import struct

from pytest_hil.usbip.descriptors import DeviceDescriptor, Kind, pack_bos
from pytest_hil.usbip.device import Interface, Setup, Stall, VirtualDevice, request
from pytest_hil.usbip.messages import Speed

# wHubCharacteristics (USB 2.0, table 11-13): who switches what.
GANGED, EACH, NOTHING = 0x0000, 0x0001, 0x0002

CONNECTED = 0x0001


class VirtualHub(VirtualDevice):
    """A USB 2 hub; ``power`` has each port's state, ``asked`` what was asked of it."""

    vendor_id, product_id, product = 0x2109, 0x2811, "USB2.0 Hub"
    manufacturer = "VIA Labs, Inc."
    device_class = 9
    main = Interface(9)
    changes = main.interrupt_in(1, max_packet=1, interval_ms=256)

    # USB 2.0: bit 8; USB 3.2, table 10-13: bit 9.
    power_bit = 8
    kind = 0x29
    release = 0x0210

    def __init__(
        self,
        ports: int = 4,
        *,
        switching: int = EACH,
        container: bytes = b"",
        serial: str = "",
    ) -> None:
        self.ports = ports
        self.switching = switching
        self.container = container
        self.serial_number = serial
        self.power = dict.fromkeys(range(1, ports + 1), True)
        # How often a port says what it was before, once it was switched.
        self.lag = 0
        # Whether it does what it is told.
        self.stuck = False
        # What it answers instead of a port's status.
        self.garbage: bytes | None = None
        self.asked: list[tuple[str, int]] = []
        self._before: dict[int, bool] = {}
        super().__init__()

    @property
    def device_descriptor(self) -> DeviceDescriptor:
        return dataclasses.replace(super().device_descriptor, usb=self.release)

    def control(self, setup: Setup, data: bytes) -> bytes | None:
        if (setup.type, setup.request, setup.value >> 8) == (0x80, 6, Kind.BOS):
            return self._bos()
        return super().control(setup, data)

    def _bos(self) -> bytes | None:
        if not self.container:
            return None
        plain = pack_bos(super_speed=self.kind == 0x2A)
        container = struct.pack("<BBBB", 20, Kind.CAPABILITY, 4, 0) + self.container
        total = struct.pack("<HB", len(plain) + len(container), plain[4] + 1)
        return plain[:2] + total + plain[5:] + container

    @request(0xA0, 6)
    def hub_descriptor(self, setup: Setup) -> bytes:
        if setup.value >> 8 != self.kind:
            raise Stall
        tail = bytes(2 * (self.ports // 8 + 1)) if self.kind == 0x29 else bytes(5)
        # Besides: over-current of each port, and LEDs, so that only the right bits count.
        characteristics = self.switching | 0x0088
        head = struct.pack(
            "<BBBHBB", 7 + len(tail), self.kind, self.ports, characteristics, 50, 100
        )
        return head + tail

    @request(0x23, 3)
    def set_port_feature(self, setup: Setup, data: bytes) -> None:
        self._switch(setup, on=True)

    @request(0x23, 1)
    def clear_port_feature(self, setup: Setup, data: bytes) -> None:
        self._switch(setup, on=False)

    def _switch(self, setup: Setup, *, on: bool) -> None:
        if setup.value != 8 or setup.index not in self.power:
            raise Stall
        self.asked.append(("on" if on else "off", setup.index))
        self._before[setup.index] = self.power[setup.index]
        if not self.stuck:
            self.power[setup.index] = on

    @request(0xA3, 0)
    def get_port_status(self, setup: Setup) -> bytes:
        if setup.value or setup.index not in self.power:
            raise Stall
        if self.garbage is not None:
            return self.garbage
        on = self.power[setup.index]
        if self.lag and setup.index in self._before:
            self.lag -= 1
            on = self._before[setup.index]
        # The other kind's bit is of the speed or the link, and says nothing of power.
        other = 1 << (17 - self.power_bit)
        return struct.pack("<HH", on << self.power_bit | other | CONNECTED, 0)


class SuperSpeedHub(VirtualHub):
    """The USB 3 half of a hub."""

    product_id, product = 0x8110, "USB3.0 Hub"
    speed = Speed.SUPER
    power_bit = 9
    kind = 0x2A
    release = 0x0300
