"""A thread that takes what comes to a listening socket, until somebody closes it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any

# Seconds for a thread that only has to see that its socket is closed.
_PATIENCE = 5.0


class Listening:
    """``take`` gets each connection, and its address, in the thread; it must not raise or wait.

    Owns ``listener``.
    """

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket, Any], object], *, name: str
    ) -> None:
        self._listener = listener
        self._take = take
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # Whatever ends this thread, nobody is to wait for it.
        with self._listener:
            while True:
                try:
                    connection, address = self._listener.accept()
                except OSError:
                    return  # closed
                self._take(connection, address)

    def close(self) -> None:
        """Nothing is taken any more. May be called twice, from any thread."""
        with contextlib.suppress(OSError):
            # close() alone would leave an accept() waiting.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(_PATIENCE)
