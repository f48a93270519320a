"""Writing to a socket whose other end may stop reading, for a while or for ever."""

from __future__ import annotations

import collections
import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Callable

_MOMENT = 0.1
"""Seconds that somebody waits who need not."""


class Unsent(Exception):
    """Not all was sent. ``begun``: but some of it was. Never leaves shell/."""

    def __init__(self, *, begun: bool = False) -> None:
        super().__init__()
        self.begun = begun


class Late(Unsent):
    """A deadline passed."""


class Broken(Unsent):
    """The socket is broken, or writing was stopped."""


def remaining(deadline: float | None) -> float | None:
    """Seconds until then, at least 0; None for ever."""
    return None if deadline is None else max(0.0, deadline - time.monotonic())


class Writer:
    """Sends whole messages for several threads, each with its own deadline.

    A message whose beginning was sent when its deadline passed is kept, and ended before any
    other: the stream never loses its framing.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._first = b""  # to be sent before anything else
        self._kept: collections.deque[bytes] = collections.deque()
        self._stopped = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._descriptor_lock = threading.Lock()
        self._closed = False

    def send(self, message: bytes, deadline: float | None) -> None:
        """Raises Late or Broken."""
        timeout = remaining(deadline)
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            raise Late
        try:
            self._send(message, deadline)
        finally:
            self._lock.release()

    def send_or_keep(self, message: bytes) -> None:
        """Send a short message now if that is possible, else before the next one."""
        self._kept.append(message)
        with contextlib.suppress(Unsent):
            self.send(b"", time.monotonic() + _MOMENT)

    def _send(self, message: bytes, deadline: float | None) -> None:
        if self._closed:
            raise Broken
        while self._kept:
            self._first += self._kept.popleft()
        first = len(self._first)
        view = memoryview(self._first + message if first else message)
        at = 0
        try:
            while at < len(view):
                try:
                    at += self._sock.send(view[at:], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                except BlockingIOError:
                    if not self._wait(deadline):
                        raise Late(begun=at > first) from None
        except OSError:
            raise Broken(begun=at > first) from None
        finally:
            # A message of which nothing was sent is forgotten.
            self._first = bytes(view[at:] if at > first else view[at:first])

    def _wait(self, deadline: float | None) -> bool:
        """Until there is room; False when the deadline came first."""
        poll = select.poll()
        poll.register(self._sock, select.POLLOUT)
        poll.register(self._stopped, select.POLLIN)
        timeout = remaining(deadline)
        ready = poll.poll(None if timeout is None else timeout * 1000)
        if any(fd == self._stopped for fd, _ in ready):
            raise ConnectionAbortedError("writing was stopped")
        return bool(ready)

    def stop(self) -> None:
        """Whoever waits for room stops waiting; so does everybody else until resume()."""
        self._signal(os.eventfd_write, 1)

    def resume(self) -> None:
        """Writers may wait again."""
        self._signal(os.eventfd_read)

    def _signal(self, call: Callable[..., object], *arguments: int) -> None:
        with self._descriptor_lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):
                    call(self._stopped, *arguments)

    def close(self) -> None:
        """Free what it holds; the socket is the owner's. May be called twice."""
        self.stop()
        with self._lock, self._descriptor_lock:
            if not self._closed:
                self._closed = True
                os.close(self._stopped)
