"""What a target must have for USB devices to be attached to it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pytest_hil.target import Completed

Arrived = Callable[[socket.socket, str], object]
"""Gets each connection, which is its own then, and the name of who is at the other end. Must not
wait."""


class Door(Protocol):
    """A way from the target to this process, open until it is closed."""

    host: str
    """Where the target finds it."""
    port: int

    def why_not(self) -> str:
        """Why it may be that no device came through it, as a sentence; "" if nothing is known."""

    def close(self) -> None:
        """What came through it stays. May be called twice, from any thread."""


class Link(Protocol):
    """A target, as far as its USB devices are concerned. Any thread may call."""

    name: str

    @property
    def up(self) -> bool:
        """Whether commands can be run on it now."""

    def run(
        self, argv: Sequence[str], timeout: float, on_output: Callable[[int, bytes], None]
    ) -> Completed:
        """Run a command, whatever its exit code; ``timeout`` in seconds.

        ``on_output`` gets (``agent.protocol.STDOUT`` or ``STDERR``, bytes): as they come where that
        can be had, at the command's end elsewhere. Raises CommandTimeout, and what breaks.
        """

    def open_door(self, arrived: Arrived) -> Door:
        """Let the target come. Raises InfrastructureError."""

    def tell(self, kind: str, **facts: Any) -> None:
        """Something happened, for events.jsonl."""
