"""The endpoints of a Facedancer device: packets on its side, an importer's transfers on ours.

Everything here runs in the device's loop.
"""

from __future__ import annotations

import asyncio
import errno
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from pytest_hil.usbip.messages import Direction, IsoPacket, Speed
from pytest_hil.usbip.urb import TransferType, Urb

# Bytes that an endpoint keeps for an importer that does not poll.
ROOM = 64 * 2**20

Key = tuple[int, Direction]


class Owner(Protocol):
    """The device, as its endpoints see it."""

    device: Any

    def endpoint(self, key: Key) -> Any:
        """Facedancer's endpoint that has this number now, or None."""

    def guard(self, call: Callable[..., object], *args: object) -> bool:
        """Call something of the device's; False when it raised."""


class Pipe:
    """An endpoint: transfers that wait. In the loop only."""

    def __init__(
        self, owner: Owner, loop: asyncio.AbstractEventLoop, key: Key, speed: Speed
    ) -> None:
        self.halted = False
        self._owner = owner
        self._loop = loop
        self._key = key
        self._waiting: deque[Urb] = deque()
        self._due = 0.0
        endpoint = owner.endpoint(key)
        self._packet = max(endpoint.max_packet_size & 0x7FF, 1) if endpoint else 64
        self._period = _period(endpoint, speed) if endpoint else 0.001

    def submit(self, urb: Urb) -> None:
        if self.halted:
            urb.stall()
            return
        self._waiting.append(urb)
        if urb.type is TransferType.ISO:
            # A packet an interval, whoever asks however fast.
            self._due = max(self._loop.time(), self._due) + len(urb.iso) * self._period
            self._loop.call_at(self._due, self._time_has_come, urb)
        else:
            self._go_on()

    def cancel(self, urb: Urb) -> None:
        if urb in self._waiting:
            self._waiting.remove(urb)

    def halt(self) -> None:
        self.halted = True
        while self._waiting:
            self._waiting.popleft().stall()

    def forget(self) -> None:
        self._waiting.clear()

    def _time_has_come(self, urb: Urb) -> None:
        if urb in self._waiting:
            self._waiting.remove(urb)
            self._packets(urb)

    def _go_on(self) -> None:
        raise NotImplementedError

    def _packets(self, urb: Urb) -> None:
        raise NotImplementedError


class OutPipe(Pipe):
    def _take(self, data: bytes) -> bool:
        device = self._owner.device
        return self._owner.guard(device.handle_data_available, self._key[0], data)

    def _go_on(self) -> None:
        while self._waiting:
            urb = self._waiting.popleft()
            data = bytes(urb.data)
            # As a board gets them: packet by packet.
            for start in range(0, len(data) or 1, self._packet):
                if self.halted or not self._take(data[start : start + self._packet]):
                    urb.stall()
                    break
            else:
                urb.complete()

    def _packets(self, urb: Urb) -> None:
        done = []
        for packet in urb.iso:
            good = self._take(bytes(urb.data[packet.offset : packet.offset + packet.length]))
            done.append(_done(packet, packet.length if good else 0, good=good))
        urb.complete(
            actual=sum(one.actual for one in done),
            iso=done,
            errors=sum(one.status != 0 for one in done),
        )


class InPipe(Pipe):
    """Packets that wait as well. While there are none, the device is asked for some, as a board
    does when it has to say NAK: an interrupt endpoint once an interval, others once a frame.
    """

    def __init__(
        self, owner: Owner, loop: asyncio.AbstractEventLoop, key: Key, speed: Speed
    ) -> None:
        super().__init__(owner, loop, key, speed)
        self._sent: deque[bytes] = deque()
        self._room = ROOM
        self._gathered = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._serving = False

    def offer(self, packet: bytes) -> bool:
        if len(packet) > self._room:
            return False
        self._room -= len(packet)
        self._sent.append(packet)
        if not self._serving:
            self._serving = True
            self._loop.call_soon(self._serve)
        return True

    def forget(self) -> None:
        super().forget()
        self._sent.clear()
        self._gathered.clear()
        self._room = ROOM
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _serve(self) -> None:
        self._serving = False
        self._go_on()

    def _go_on(self) -> None:
        while self._waiting and self._waiting[0].type is not TransferType.ISO:
            urb = self._waiting[0]
            if not self._gather(urb.length):
                break
            self._waiting.popleft()
            data = bytes(self._gathered)
            if urb.complete(data):
                self._gathered.clear()
                self._emptied()
        if self._waiting and self._timer is None and not self._sent:
            self._timer = self._loop.call_at(max(self._due, self._loop.time()), self._ask)

    def _gather(self, length: int) -> bool:
        """A transfer's bytes are all here: a short packet ends it, or that it is full."""
        while self._sent and len(self._gathered) < length:
            packet = self._pop()
            self._gathered += packet
            if len(packet) < self._packet:
                return True
        return len(self._gathered) >= length

    def _pop(self) -> bytes:
        packet = self._sent.popleft()
        self._room += len(packet)
        return packet

    def _emptied(self) -> None:
        if not self._sent:
            self._owner.guard(self._owner.device.handle_buffer_available, self._key[0])

    def _ask(self) -> None:
        self._timer = None
        if self._waiting and not self._sent:
            self._due = self._loop.time() + self._period
            self._nak()
            self._go_on()

    def _nak(self) -> None:
        if not self._owner.guard(self._owner.device.handle_nak, self._key[0]) and self._waiting:
            self._waiting.popleft().stall()

    def _packets(self, urb: Urb) -> None:
        parts, done = [], []
        for packet in urb.iso:
            if not self._sent:
                self._owner.guard(self._owner.device.handle_nak, self._key[0])
            data = self._pop()[: packet.length] if self._sent else b""
            parts.append(data)
            done.append(_done(packet, len(data)))
        urb.complete(b"".join(parts), iso=done)
        self._emptied()


def _done(packet: IsoPacket, actual: int, *, good: bool = True) -> IsoPacket:
    return replace(packet, actual=actual, status=0 if good else -errno.EPROTO)


def _period(endpoint: Any, speed: Speed) -> float:
    """Seconds between two packets (USB 2.0, table 9-13), or between two questions for bulk data."""
    kind = TransferType(int(endpoint.transfer_type))
    slow = speed in (Speed.LOW, Speed.FULL)
    if kind not in (TransferType.INTERRUPT, TransferType.ISO) or not endpoint.interval:
        return 0.001
    if slow and kind is TransferType.INTERRUPT:
        return float(endpoint.interval) / 1000
    unit = 0.001 if slow else 0.000125
    return float(unit * 2 ** (min(endpoint.interval, 16) - 1))
