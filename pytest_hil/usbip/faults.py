"""Faults on purpose, deterministic: a device between an exporter and the real one.

``Faulty(device, [stall(endpoint=0x81, nth=3), delay(0.1, every=10)], seed=7)``. Which transfer is
hit depends on their order and on the seed alone.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypedDict, Unpack

from pytest_hil.errors import ConfigError
from pytest_hil.usbip.messages import (
    STALL,
    Bytes,
    Device,
    Direction,
    IsoPacket,
)
from pytest_hil.usbip.scheduler import Scheduler
from pytest_hil.usbip.urb import Exportable, Owner, TransferType, Urb

Action = Literal["delay", "drop", "short", "stall", "corrupt", "disconnect"]


class Which(TypedDict, total=False):
    """Which transfers a fault is about; what is not said does not choose.

    ``endpoint``: an address (0x81 is IN 1); all but the control endpoint if not said. Of the
    transfers there: the ``nth`` (from 1), ``every`` so many, each with a ``probability``. At most
    ``count`` times.
    """

    endpoint: int
    nth: int
    every: int
    probability: float
    count: int


@dataclass(frozen=True, slots=True)
class UsbFault:
    """What happens, and to which transfers: see :class:`Which`. Made by :func:`delay` and so on."""

    action: Action
    endpoint: int | None = None
    nth: int | None = None
    every: int | None = None
    probability: float | None = None
    count: int | None = None
    seconds: float = 0.0
    length: int = 0

    def __post_init__(self) -> None:
        for name in ("nth", "every", "count"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{self.action}()", f"{name} is {value}; it counts from 1")
        if self.probability is not None and not 0 <= self.probability <= 1:
            raise ConfigError(f"{self.action}()", f"probability is {self.probability}; 0 to 1")
        if self.endpoint is not None and self.endpoint & ~0x8F:
            raise ConfigError(
                f"{self.action}()",
                f"endpoint is {self.endpoint:#x}; an address is 0x00 to 0x0f, or 0x80 to 0x8f",
            )
        if self.seconds < 0 or self.length < 0:
            raise ConfigError(f"{self.action}()", "less than nothing is asked for")

    def concerns(self, urb: Urb) -> bool:
        """Whether it is about this transfer's endpoint."""
        return urb.endpoint != 0 if self.endpoint is None else urb.address == self.endpoint


def delay(seconds: float, **which: Unpack[Which]) -> UsbFault:
    """The device gets the transfer so much later."""
    return UsbFault("delay", seconds=seconds, **which)


def drop(**which: Unpack[Which]) -> UsbFault:
    """The device never gets it, and it never ends, until somebody gives it up."""
    return UsbFault("drop", **which)


def short(length: int = 0, **which: Unpack[Which]) -> UsbFault:
    """It moves at most ``length`` bytes: of an IN the rest is lost, an OUT took only so much."""
    return UsbFault("short", length=length, **which)


def stall(**which: Unpack[Which]) -> UsbFault:
    """The endpoint says no, and the device never gets it."""
    return UsbFault("stall", **which)


def corrupt(**which: Unpack[Which]) -> UsbFault:
    """One bit of its data is flipped, whichever way they go."""
    return UsbFault("corrupt", **which)


def disconnect(**which: Unpack[Which]) -> UsbFault:
    """The device is gone for its importer, with this transfer in flight."""
    return UsbFault("disconnect", **which)


@dataclass(frozen=True, slots=True)
class Injected:
    """A fault that was done: to the ``number``-th transfer of ``endpoint`` (an address)."""

    action: Action
    endpoint: int
    number: int


@dataclass(slots=True)
class _Counted:
    fault: UsbFault
    seen: int = 0
    done: int = 0


class Faulty:
    """A device that does what another one does, but for its faults. ``injected``: what was done."""

    def __init__(self, device: Exportable, faults: Sequence[UsbFault], *, seed: int = 0) -> None:
        self.device = device
        self.injected: list[Injected] = []
        self._faults = [_Counted(one) for one in faults]
        self._random = random.Random(seed)
        self._numbers: dict[int, int] = {}
        self._lock = threading.Lock()
        self._scheduler = Scheduler("hil-usbip-faults")
        # Transfers that the device has not got yet, or never will.
        self._held: set[Urb] = set()

    def __repr__(self) -> str:
        return f"<Faulty {self.device!r}>"

    def describe(self) -> Device:
        return self.device.describe()

    def transfer_type(self, endpoint: int, direction: Direction) -> TransferType | None:
        return self.device.transfer_type(endpoint, direction)

    def plugged(self, unplug: Callable[[], None]) -> None:
        self.device.plugged(unplug)

    def imported(self) -> None:
        self.device.imported()

    def submit(self, urb: Urb) -> None:
        fault = self._next(urb)
        if fault is None:
            self.device.submit(urb)
        elif fault.action == "stall":
            urb.complete(status=STALL)
        elif fault.action == "disconnect":
            self._hold(urb)
            urb.disconnect()
        elif fault.action == "drop":
            self._hold(urb)
        elif fault.action == "delay":
            self._hold(urb)
            self._scheduler.at(time.monotonic() + fault.seconds, lambda: self._late(urb))
        else:
            self._changed(urb, fault)

    def cancel(self, urb: Urb) -> None:
        with self._lock:
            held = urb in self._held
            self._held.discard(urb)
        if not held:
            self.device.cancel(urb)

    def released(self) -> None:
        self._scheduler.clear()
        with self._lock:
            self._held.clear()
        self.device.released()

    def _next(self, urb: Urb) -> UsbFault | None:
        """The first fault that hits this transfer. Each of them counts it."""
        found: UsbFault | None = None
        with self._lock:
            number = self._numbers[urb.address] = self._numbers.get(urb.address, 0) + 1
            for one in self._faults:
                if one.fault.concerns(urb) and self._hits(one) and found is None:
                    one.done += 1
                    found = one.fault
            if found is not None:
                self.injected.append(Injected(found.action, urb.address, number))
        return found

    def _hits(self, one: _Counted) -> bool:
        one.seen += 1
        fault = one.fault
        # Drawn whether it matters or not: the next transfer's luck must not depend on that.
        lucky = fault.probability is None or self._random.random() < fault.probability
        if fault.count is not None and one.done >= fault.count:
            return False
        if fault.nth is not None and one.seen != fault.nth:
            return False
        return lucky and (fault.every is None or one.seen % fault.every == 0)

    def _hold(self, urb: Urb) -> None:
        with self._lock:
            self._held.add(urb)

    def _late(self, urb: Urb) -> None:
        with self._lock:
            if urb not in self._held:
                return
            self._held.discard(urb)
        try:
            self.device.submit(urb)
        except Exception:
            urb.stall()  # the device keeps what its handler raised

    def _changed(self, urb: Urb, fault: UsbFault) -> None:
        if urb.direction is Direction.OUT:
            if fault.action == "corrupt":
                urb.data = self._flipped(urb.data)
            else:
                urb.data = urb.data[: fault.length]
        urb.owner = _Between(urb.owner, fault, self._flipped)
        self.device.submit(urb)

    def _flipped(self, data: Bytes) -> bytes:
        changed = bytearray(data)
        if changed:
            with self._lock:
                bit = self._random.randrange(8 * len(changed))
            changed[bit // 8] ^= 1 << bit % 8
        return bytes(changed)


class _Between:
    """Takes the end of a transfer from the device, changes it, and gives it to its real owner."""

    def __init__(self, owner: Owner, fault: UsbFault, flipped: Callable[[Bytes], bytes]) -> None:
        self._owner = owner
        self._fault = fault
        self._flipped = flipped

    def finish(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket], errors: int
    ) -> bool:
        if self._fault.action == "corrupt":
            if urb.direction is Direction.IN:
                data = self._flipped(data)
        else:
            actual = min(actual, self._fault.length)
            iso = _shortened(iso, actual)
            if urb.direction is Direction.IN:
                data = data[:actual]
        return self._owner.finish(urb, status, data, actual, iso, errors)

    def disconnect(self) -> None:
        self._owner.disconnect()


def _shortened(iso: Sequence[IsoPacket], total: int) -> list[IsoPacket]:
    """Packets that bring only so much together, the first ones first."""
    found = []
    for packet in iso:
        count = min(packet.actual, total)
        total -= count
        found.append(replace(packet, actual=count))
    return found
