"""The way a console's bytes come and go.

A transport is an open file descriptor that never blocks: the console's thread waits
for it with poll(2), together with the console's own wake-up. So whatever has a
descriptor (a socket now; a serial line, a pty, a pipe pair of a program later) needs
only the four methods of :class:`Transport`.
"""

from __future__ import annotations

import socket
from typing import Protocol


class Transport(Protocol):
    """An open byte stream in both directions, without blocking."""

    def fileno(self) -> int:
        """The descriptor to wait for; the same until :meth:`close`."""

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes; ``b""`` when the other side has ended the stream.

        Raises BlockingIOError when there is nothing yet, OSError when the stream broke.
        """

    def write(self, data: memoryview) -> int:
        """Give away the first bytes of ``data`` and say how many.

        Raises BlockingIOError when the other side takes none now, OSError when the stream broke.
        """

    def close(self) -> None:
        """Free the descriptor. May be called twice."""


class SocketTransport:
    """A connected stream socket, of which it becomes the owner."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._fd = sock.fileno()

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        return self._socket.recv(size)

    def write(self, data: memoryview) -> int:
        # A vanished reader is an error of this call, whoever set SIGPIPE back to its default.
        return self._socket.send(data, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()
