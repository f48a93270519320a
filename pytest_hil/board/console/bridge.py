"""A line of pyserial's that has no descriptor (rfc2217://): a socket pair and two threads."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import warnings
from typing import Any

_PIECE = 64 * 1024


class BridgedTransport:
    """Opens ``line``, an unopened ``serial.Serial`` of whatever kind, and moves its bytes.

    Raises what its open() raises: OSError, ValueError. A line that breaks is an OSError of
    :meth:`read`, after the last byte that came.
    """

    def __init__(self, line: Any, name: str) -> None:
        self._line = line
        self._name = name
        self._why = ""
        self._closed = False
        with warnings.catch_warnings():
            # pyserial 3.5 names its threads in the old way.
            warnings.simplefilter("ignore", DeprecationWarning)
            line.open()
        self._ours, self._theirs = socket.socketpair()
        self._ours.setblocking(False)
        self._fd = self._ours.fileno()
        self._threads = [
            threading.Thread(target=target, name=f"hil-bridge-{name}", daemon=True)
            for target in (self._from_line, self._to_line)
        ]
        for thread in self._threads:
            thread.start()

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        data = self._ours.recv(size)
        if not data and self._why:
            raise OSError(self._why)
        return data

    def write(self, data: memoryview) -> int:
        return self._ours.send(data, socket.MSG_NOSIGNAL)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._hang_up(self._ours)
        self._ours.close()
        # A reader of a real tty is woken and then its tty closed; of a socket, it wakes by that.
        if hasattr(self._line, "cancel_read"):
            self._line.cancel_read()
            self._threads[0].join(1.0)
        self._line.close()
        for thread in self._threads:
            thread.join(1.0)
        self._theirs.close()

    def _from_line(self) -> None:
        try:
            while data := self._line.read(1):
                self._theirs.sendall(data)
                if waiting := self._line.in_waiting:
                    self._theirs.sendall(self._line.read(min(waiting, _PIECE)))
            self._why = f"{self._name}: the other side ended the connection"
        except Exception as error:
            # Whatever a handler of a URL raises: pyserial's own are not all OSError.
            self._why = f"{self._name}: {error}"
            with contextlib.suppress(OSError):
                self._theirs.sendall(self._left())
        finally:
            self._hang_up(self._theirs)

    def _left(self) -> bytes:
        """What had come when the connection broke: pyserial's rfc2217 does not give it any more."""
        left = b""
        waiting = getattr(self._line, "_read_buffer", None)
        if isinstance(waiting, queue.Queue):
            with contextlib.suppress(queue.Empty):
                while True:
                    left += waiting.get_nowait() or b""
        return left

    def _to_line(self) -> None:
        try:
            while data := self._theirs.recv(_PIECE):
                self._line.write(data)
        except Exception as error:
            self._why = self._why or f"{self._name}: {error}"
        finally:
            self._hang_up(self._theirs)

    @staticmethod
    def _hang_up(end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
