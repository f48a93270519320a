"""How xdist's workers tell the controller what they are doing: datagrams to an abstract socket.

It has no path, so there is nothing to leave behind; who is not listened to loses a status line
and nothing else. The workers' reports of tests go xdist's own way.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Literal

# In JSON one character may take twelve bytes.
_MAX_TEXT = 300
_MAX = 4096
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Message:
    """``status``: what ``worker`` is doing now ("": nothing that takes long any more).

    ``say``: what the user should know, once.
    """

    worker: str
    kind: Literal["status", "say"]
    text: str


class Listener:
    """The controller's end. ``on_message`` is called from its thread."""

    def __init__(self, on_message: Callable[[Message], None]) -> None:
        self._on_message = on_message
        self.name = f"pytest-hil-{os.getpid()}-{os.urandom(8).hex()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        # An abstract name has no permissions: the kernel tells who sent what.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(f"\0{self.name}")
        self._thread = threading.Thread(target=self._listen, name="hil-status", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            data, ancillary, _flags, _address = self._socket.recvmsg(
                _MAX, socket.CMSG_SPACE(_CREDENTIALS.size)
            )
            if _sender(ancillary) != os.getuid():
                continue
            if not data:
                return
            if (message := _decode(data)) is not None:
                self._on_message(message)

    def close(self) -> None:
        """End the thread. Messages that were sent before are still delivered."""
        with contextlib.suppress(OSError), _connected(self.name) as ours:
            ours.send(b"")
        self._thread.join(timeout=5)
        self._socket.close()


class Sender:
    """A worker's end. Never waits, never fails."""

    def __init__(self, name: str, worker: str) -> None:
        self._worker = worker
        self._socket: socket.socket | None = None
        with contextlib.suppress(OSError):
            self._socket = _connected(name)
            self._socket.setblocking(False)

    def send(self, kind: Literal["status", "say"], text: str) -> None:
        if self._socket is not None:
            message = Message(self._worker, kind, text[:_MAX_TEXT])
            with contextlib.suppress(OSError):
                self._socket.send(json.dumps(asdict(message)).encode())

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()


def _connected(name: str) -> socket.socket:
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        ours.connect(f"\0{name}")
    except OSError:
        ours.close()
        raise
    return ours


def _sender(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """The user who sent a datagram."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
            _pid, uid, _gid = _CREDENTIALS.unpack(data[: _CREDENTIALS.size])
            return int(uid)
    return None


def _decode(data: bytes) -> Message | None:
    try:
        message = Message(**json.loads(data))
    except (ValueError, TypeError):
        return None
    words = [message.worker, message.kind, message.text]
    known = message.kind in ("status", "say") and all(isinstance(word, str) for word in words)
    return message if known else None
