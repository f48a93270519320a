"""A board's serial line: the board on one side, whoever is connected on the other.

The line is there as long as the rig, as a USB adapter stays in its socket: the board's machines
come and go behind it. Nothing waits for a slow reader, as no UART does.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from pytest_hil.rig.record import Record
from pytest_hil.rig.stream import Stream, in_loop
from pytest_hil.usbip.loop import LoopThread

if TYPE_CHECKING:
    from pytest_hil.rig.outside import Outside

# What the board has not yet taken of what was typed, in bytes: then its sender has to wait.
_TYPED_AHEAD = 64 * 1024


class Line:
    """Made with nobody at either side. What is not said to be for the loop, any thread may call."""

    def __init__(self, thread: LoopThread, record: Record) -> None:
        self.thread = thread
        self.loop = thread.loop
        self.record = record
        self.outside: Outside | None = None
        self._machine: Stream | None = None
        self._chance = random.Random()
        self._loss = 0.0

    # --- the board's side ---

    def attach(self, fd: int) -> None:
        """Connect a machine's serial port, of which the line becomes the owner.

        What the one before has said is passed on first.
        """

        def do() -> None:
            if self._machine is not None:
                self._machine.drain()
                self._machine.close()
            self._machine = Stream(
                self.loop, fd, on_data=self._said, on_end=self._fell_silent, on_room=self._room
            )

        in_loop(self.thread, do)

    def detach(self) -> None:
        """The machine has no power any more: not one byte of it after this."""

        def do() -> None:
            if self._machine is not None:
                self._machine.close()
                self._machine = None

        in_loop(self.thread, do)

    def _fell_silent(self) -> None:
        self._machine = None

    def _room(self) -> None:
        if self.outside is not None:
            self.outside.resume()

    def _said(self, data: bytes) -> None:
        if self._loss:
            data = bytes(byte for byte in data if self._chance.random() >= self._loss)
        if self.outside is not None:
            self.outside.send(data)

    # --- the other side; in the loop ---

    def typed(self, data: bytes) -> None:
        """What whoever is connected says; without power it goes nowhere."""
        if self._machine is not None:
            self._machine.write(data)
            if self._machine.pending > _TYPED_AHEAD and self.outside is not None:
                self.outside.pause()

    def look(self) -> None:
        """Whoever has connected before now misses nothing that is said from now on."""

        def do() -> None:
            if self.outside is not None:
                self.outside.look()

        in_loop(self.thread, do)

    # --- what goes wrong ---

    def lose(self, rate: float, *, seed: int) -> None:
        """From now on each byte of the board is lost with this probability; 0: none."""

        def do() -> None:
            self._chance = random.Random(seed)
            self._loss = rate

        in_loop(self.thread, do)

    def garbage(self, count: int, *, seed: int) -> None:
        """Bytes that nobody has sent, now, amidst whatever the board is saying."""
        noise = random.Random(seed).randbytes(count)

        def do() -> None:
            if self.outside is not None:
                self.outside.send(noise)

        in_loop(self.thread, do)

    def vanish(self, seconds: float) -> None:
        """The adapter is gone, with whoever was connected to it, and comes back."""

        def do() -> None:
            if self.outside is not None:
                self.outside.vanish()
                self.loop.call_later(seconds, self.outside.appear)

        in_loop(self.thread, do)

    def plug(self, there: bool) -> None:
        """The adapter is there from now on, or gone with whoever was connected to it."""

        def do() -> None:
            if self.outside is not None:
                (self.outside.appear if there else self.outside.vanish)()

        in_loop(self.thread, do)

    def close(self) -> None:
        self.detach()

        def do() -> None:
            if self.outside is not None:
                self.outside.close()
                self.outside = None

        in_loop(self.thread, do)
