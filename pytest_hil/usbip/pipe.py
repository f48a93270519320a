"""An endpoint of a device that lives: its queue, its waiting transfers, and its handlers.

Everything here is called with the device's lock held, but for what says otherwise.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from pytest_hil.errors import NotThere
from pytest_hil.usbip.declare import Endpoint
from pytest_hil.usbip.messages import SHUTDOWN, Bytes, Direction, IsoPacket
from pytest_hil.usbip.scheduler import Scheduler
from pytest_hil.usbip.urb import TransferType, Urb

# What waits for an importer, or for the test: transfers. A sender waits for room.
DEPTH = 64


class Stall(Exception):
    """Raised by a handler: the endpoint says no to this transfer."""


class Host(Protocol):
    """The device, as its pipes see it."""

    changed: threading.Condition
    scheduler: Scheduler

    def period(self, endpoint: Endpoint) -> float:
        """Seconds between two of an endpoint's packets."""


class Pipe:
    """What both directions have in common."""

    def __init__(self, host: Host, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.halted = False
        self._host = host
        self._waiting: deque[Urb] = deque()
        self._queue: deque[bytes] = deque()
        self._raw = self._handler("urb")
        self._due = 0.0

    def __repr__(self) -> str:
        one = self.endpoint
        return f"<{type(self).__name__} {one.name or one.number} {one.type.name}>"

    def _handler(self, event: str) -> Callable[..., Any] | None:
        name = self.endpoint.handlers.get(event)
        return None if name is None else getattr(self._host, name)

    def submit(self, urb: Urb) -> None:
        """A transfer of the importer's. What a handler raises comes through."""
        if self.halted:
            urb.stall()
        elif self._raw is not None:
            self._raw(urb)
        elif urb.type is TransferType.ISO:
            self._pace(urb)
        else:
            self._waiting.append(urb)
            self._go_on()

    def cancel(self, urb: Urb) -> None:
        """Forget a transfer, if it waits here."""
        if urb in self._waiting:
            self._waiting.remove(urb)

    def shut(self) -> None:
        """The setting that it belongs to is left: nothing of it stays."""
        while self._waiting:
            self._waiting.popleft().complete(status=SHUTDOWN)
        self._queue.clear()
        self.halted = False
        self._due = 0.0
        self._host.changed.notify_all()

    def halt(self) -> None:
        """Say no to everything until the importer clears it. Any thread may call."""
        with self._host.changed:
            self.halted = True
            while self._waiting:
                self._waiting.popleft().stall()

    def _go_on(self) -> None:
        raise NotImplementedError

    def _wait_for(self, what: Callable[[], object], timeout: float) -> bool:
        return bool(self._host.changed.wait_for(what, timeout))

    # Isochronous: a packet an interval, whoever asks however fast.

    def _pace(self, urb: Urb) -> None:
        now = time.monotonic()
        period = self._host.period(self.endpoint)
        self._due = max(now, self._due) + len(urb.iso) * period
        self._waiting.append(urb)
        self._host.scheduler.at(self._due, lambda: self._time_has_come(urb))

    def _time_has_come(self, urb: Urb) -> None:
        with self._host.changed:
            if urb in self._waiting:
                self._waiting.remove(urb)
                self._packets(urb)

    def _packets(self, urb: Urb) -> None:
        raise NotImplementedError


class OutPipe(Pipe):
    """From the importer: each transfer goes to the handler, or waits for :meth:`read`.

    At most 64 transfers wait; then the importer does.
    """

    def __init__(self, host: Host, endpoint: Endpoint) -> None:
        super().__init__(host, endpoint)
        self._received = self._handler("received")

    def read(self, timeout: float = 10.0) -> bytes:
        """The next transfer's bytes. Any thread may call. Raises NotThere after ``timeout`` s."""
        with self._host.changed:
            if not self._wait_for(lambda: self._queue, timeout):
                raise NotThere(f"nothing came to {self!r} within {timeout:g} s")
            data = self._queue.popleft()
            self._go_on()
            return data

    def _go_on(self) -> None:
        while self._waiting and (self._received is not None or len(self._queue) < DEPTH):
            urb = self._waiting.popleft()
            try:
                self._take(bytes(urb.data))
            except Stall:
                urb.stall()
            except Exception:
                urb.stall()
                raise
            else:
                urb.complete()

    def _take(self, data: bytes) -> None:
        if self._received is not None:
            self._received(data)
        else:
            self._queue.append(data)
            self._host.changed.notify_all()

    def _packets(self, urb: Urb) -> None:
        done = []
        for packet in urb.iso:
            data = bytes(urb.data[packet.offset : packet.offset + packet.length])
            if self._received is not None or len(self._queue) < 16 * DEPTH:
                self._take(data)
            done.append(replace(packet, actual=packet.length, status=0))
        urb.complete(actual=sum(packet.actual for packet in done), iso=done)


class InPipe(Pipe):
    """Towards the importer: what was sent waits until it polls."""

    def __init__(self, host: Host, endpoint: Endpoint) -> None:
        super().__init__(host, endpoint)
        self._requested = self._handler("requested")

    def send(self, data: Bytes, *, timeout: float = 10.0) -> None:
        """Queue one message. Any thread may call.

        It ends the transfer that takes it, which may be shorter than was asked for; a longer
        message goes on in the next transfer. Waits while 64 messages wait already: handlers, which
        must not wait, use :meth:`offer`.

        Raises NotThere when nobody takes them for ``timeout`` seconds.
        """
        with self._host.changed:
            if not self._wait_for(lambda: len(self._queue) < DEPTH, timeout):
                raise NotThere(
                    f"nobody polls {self!r}: {len(self._queue)} messages wait since {timeout:g} s",
                    mend="is the device attached, and does a driver use it?",
                )
            self._queue.append(bytes(data))
            self._go_on()

    def offer(self, data: Bytes) -> bool:
        """:meth:`send` without waiting: False if there is no room. For handlers."""
        with self._host.changed:
            if len(self._queue) >= DEPTH:
                return False
            self._queue.append(bytes(data))
            self._go_on()
            return True

    def wait_sent(self, timeout: float = 10.0) -> None:
        """Until the importer took all. Any thread may call. Raises NotThere."""
        with self._host.changed:
            if not self._wait_for(lambda: not self._queue, timeout):
                raise NotThere(
                    f"nobody polled {self!r} for {timeout:g} s: {len(self._queue)} messages wait",
                    mend="is the device attached, and does a driver use it?",
                )

    @property
    def waiting(self) -> int:
        """How many messages wait for the importer."""
        return len(self._queue)

    def forget(self) -> None:
        """Drop what waits. Any thread may call."""
        with self._host.changed:
            self._queue.clear()
            self._host.changed.notify_all()

    def _go_on(self) -> None:
        # Isochronous transfers end when their time has come, not when there is something to say.
        while self._waiting and self.endpoint.type is not TransferType.ISO:
            urb = self._waiting[0]
            if self._queue:
                data = self._queue.popleft()
                if len(data) > urb.length:
                    self._queue.appendleft(data[urb.length :])
                    data = data[: urb.length]
            else:
                asked = self._ask(urb.length)
                if asked is None:
                    return
                data = asked
            self._waiting.popleft()
            urb.complete(data)
            self._host.changed.notify_all()

    def _ask(self, length: int) -> bytes | None:
        if self._requested is None:
            return None
        try:
            found: bytes | None = self._requested(length)
        except Stall:
            self._waiting.popleft().stall()
            return None
        except Exception:
            self._waiting.popleft().stall()
            raise
        return found

    def _packets(self, urb: Urb) -> None:
        parts: list[bytes] = []
        done: list[IsoPacket] = []
        for packet in urb.iso:
            data = self._queue.popleft() if self._queue else self._ask(packet.length) or b""
            data = data[: packet.length]
            parts.append(data)
            done.append(replace(packet, actual=len(data), status=0))
        urb.complete(b"".join(parts), iso=done)
        self._host.changed.notify_all()


def open_pipe(host: Host, endpoint: Endpoint) -> Pipe:
    """The pipe of an endpoint."""
    return (InPipe if endpoint.direction is Direction.IN else OutPipe)(host, endpoint)
