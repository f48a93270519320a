"""Descriptors in the rig's one event loop: read as bytes come, written as they are taken."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from pytest_hil.errors import InfrastructureError
from pytest_hil.usbip.loop import LoopThread

T = TypeVar("T")

_CHUNK = 64 * 1024
# Seconds for what only ever waits for its turn in the loop.
_TURN = 30.0


def in_loop(thread: LoopThread, do: Callable[[], T]) -> T:
    """Do it in the loop's thread and wait for the result; at once if this is that thread.

    Raises InfrastructureError when there is no loop any more, and what it raises.
    """
    if thread.inside:
        return do()
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(do())
        except BaseException as error:  # it is the caller's, all of it
            done.set_exception(error)

    if not thread.soon(run):
        raise InfrastructureError("the rig is closed")
    return done.result(_TURN)


class Stream:
    """Owns a descriptor. All of it is called in the loop's thread.

    ``on_data`` gets what comes in; ``on_end`` is called once when the other side has ended it.
    ``on_room`` is called when everything that was written has been taken.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        *,
        on_data: Callable[[bytes], None],
        on_end: Callable[[], None] = lambda: None,
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._fd = fd
        self._on_data = on_data
        self._on_end = on_end
        self._on_room = on_room
        self._pending = bytearray()
        self._paused = False
        loop.add_reader(fd, self._read)

    @property
    def fd(self) -> int:
        """-1 when it is closed."""
        return self._fd

    @property
    def pending(self) -> int:
        """How many bytes were written and not yet taken."""
        return len(self._pending)

    def write(self, data: bytes) -> None:
        if self._fd < 0 or not data:
            return
        idle = not self._pending
        self._pending += data
        if idle:
            self._flush()
            if self._pending and self._fd >= 0:
                self._loop.add_writer(self._fd, self._flush)

    def forget(self) -> None:
        """What was not yet taken is thrown away."""
        if self._pending:
            self._pending.clear()
            self._loop.remove_writer(self._fd)

    def pause(self) -> None:
        """Read no more for now."""
        if self._fd >= 0 and not self._paused:
            self._paused = True
            self._loop.remove_reader(self._fd)

    def resume(self) -> None:
        if self._fd >= 0 and self._paused:
            self._paused = False
            self._loop.add_reader(self._fd, self._read)

    def drain(self) -> None:
        """Take all that is there now."""
        while self._fd >= 0 and self._read():
            pass

    def close(self) -> None:
        """May be called twice."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _read(self) -> bool:
        try:
            data = os.read(self._fd, _CHUNK)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:  # a pty's other side is closed (EIO), a connection was reset
            data = b""
        if data:
            self._on_data(data)
            return True
        self.close()
        self._on_end()
        return False

    def _flush(self) -> None:
        try:
            done = os.write(self._fd, self._pending)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            # Nobody takes it. That it ended is seen by reading.
            done = len(self._pending)
        del self._pending[:done]
        if not self._pending:
            self._loop.remove_writer(self._fd)
            self._on_room()
