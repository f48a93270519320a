"""A USB hub with a power switch for each port, as a device that is exported over USB/IP.

USB 2.0, 11.24.2 and table 11-13.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ClassVar

from pytest_hil.rig.board import RigBoard
from pytest_hil.usbip.descriptors import DeviceDescriptor
from pytest_hil.usbip.device import Interface, Setup, Stall, VirtualDevice, request
from pytest_hil.usbip.exporter import Exporter

# wHubCharacteristics: each port has a switch of its own; besides, over-current of each port and
# LEDs, so that only the right bits count.
EACH = 0x0001
_BESIDES = 0x0088
_CONNECTED = 0x0001
_PORT_POWER = 8


class Hub(VirtualDevice):
    """A USB 2 hub: what it says of itself, and the requests of its class."""

    vendor_id, product_id, product = 0x2109, 0x2811, "USB2.0 Hub"
    manufacturer = "VIA Labs, Inc."
    device_class = 9
    main = Interface(9)
    changes = main.interrupt_in(1, max_packet=1, interval_ms=256)

    power_bit: ClassVar[int] = 8
    kind = 0x29
    release: ClassVar[int] = 0x0200

    def __init__(self, ports: int = 4, *, switching: int = EACH) -> None:
        self.ports = ports
        self.switching = switching
        super().__init__()

    def switch(self, port: int, on: bool) -> None:
        """It is told to switch a port that there is."""
        raise NotImplementedError

    def has_power(self, port: int) -> bool:
        """What it says of a port that there is."""
        raise NotImplementedError

    @property
    def device_descriptor(self) -> DeviceDescriptor:
        return dataclasses.replace(super().device_descriptor, usb=self.release)

    @request(0xA0, 6)
    def hub_descriptor(self, setup: Setup) -> bytes:
        if setup.value >> 8 != self.kind:
            raise Stall
        tail = bytes(2 * (self.ports // 8 + 1)) if self.kind == 0x29 else bytes(5)
        characteristics = self.switching | _BESIDES
        head = struct.pack(
            "<BBBHBB", 7 + len(tail), self.kind, self.ports, characteristics, 50, 100
        )
        return head + tail

    @request(0x23, 3)
    def set_port_feature(self, setup: Setup, _data: bytes) -> None:
        self._told(setup, on=True)

    @request(0x23, 1)
    def clear_port_feature(self, setup: Setup, _data: bytes) -> None:
        self._told(setup, on=False)

    def _told(self, setup: Setup, *, on: bool) -> None:
        if setup.value != _PORT_POWER or not 1 <= setup.index <= self.ports:
            raise Stall
        self.switch(setup.index, on)

    @request(0xA3, 0)
    def get_port_status(self, setup: Setup) -> bytes:
        if setup.value or not 1 <= setup.index <= self.ports:
            raise Stall
        on = self.has_power(setup.index)
        # The other kind's bit is of the speed or the link, and says nothing of power.
        other = 1 << (17 - self.power_bit)
        return struct.pack("<HH", on << self.power_bit | other | _CONNECTED, 0)


class _BoardsHub(Hub):
    """Its first port is a board's power."""

    def __init__(self, board: RigBoard) -> None:
        super().__init__()
        self._board = board
        # What a device is asked must not wait for a board that starts.
        self._worker = ThreadPoolExecutor(1, f"hil-rig-hub-{board.name}")
        self._switching: Future[None] | None = None
        self._before = False

    def switch(self, port: int, on: bool) -> None:
        if port == 1:
            self._before = self.has_power(1)
            self._switching = self._worker.submit(self._board.power, on)

    def has_power(self, port: int) -> bool:
        """What it was, until it is what it was told to be."""
        if port != 1:
            return True
        switching = self._switching
        return self._board.relay if switching is None or switching.done() else self._before

    def end(self) -> None:
        self._worker.shutdown()


class HubPower:
    """A hub for each board, each behind an exporter of its own: who looks for one hub opens all
    that an exporter has, and would be in the others' way.
    """

    def __init__(self) -> None:
        self._ends: list[Callable[[], None]] = []

    def table(self, board: RigBoard) -> dict[str, object]:
        """What switches this board, for boards.toml."""
        hub = _BoardsHub(board)
        exporter = Exporter()
        self._ends += [hub.end, exporter.close]
        exporter.plug(hub)
        host, port = exporter.address
        return {"driver": "usb-hub", "usbip": f"{host}:{port}", "hub": "2109:2811", "port": 1}

    def close(self) -> None:
        """Nobody can switch any more. May be called twice."""
        while self._ends:
            self._ends.pop()()
