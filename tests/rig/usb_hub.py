"""A USB hub whose ports switch nothing: what was asked of it is written down, and it may be ill."""

from __future__ import annotations

import struct

from pytest_hil.rig.usb_hub import EACH, Hub
from pytest_hil.usbip.descriptors import Kind, pack_bos
from pytest_hil.usbip.device import Setup, request
from pytest_hil.usbip.messages import Speed

# wHubCharacteristics (USB 2.0, table 11-13): who switches what.
GANGED, NOTHING = 0x0000, 0x0002


class VirtualHub(Hub):
    """``power`` has each port's state, ``asked`` what was asked of it."""

    release = 0x0210

    def __init__(
        self,
        ports: int = 4,
        *,
        switching: int = EACH,
        container: bytes = b"",
        serial: str = "",
    ) -> None:
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
        super().__init__(ports, switching=switching)

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

    def switch(self, port: int, on: bool) -> None:
        self.asked.append(("on" if on else "off", port))
        self._before[port] = self.power[port]
        if not self.stuck:
            self.power[port] = on

    def has_power(self, port: int) -> bool:
        if self.lag and port in self._before:
            self.lag -= 1
            return self._before[port]
        return self.power[port]

    @request(0xA3, 0)
    def get_port_status(self, setup: Setup) -> bytes:
        return super().get_port_status(setup) if self.garbage is None else self.garbage


class SuperSpeedHub(VirtualHub):
    """The USB 3 half of a hub (USB 3.2, table 10-13)."""

    product_id, product = 0x8110, "USB3.0 Hub"
    speed = Speed.SUPER
    power_bit = 9
    kind = 0x2A
    release = 0x0300
