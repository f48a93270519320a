"""How commands and servers talk: a JSON object on a line, and the bytes that it announces.

Nothing is read beyond a message's end, so that what follows it on the socket may be another
protocol: after ``console`` come the console's bytes as they are.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from typing import Any

from pytest_hil.errors import ChannelLost, ProtocolError

MAX_LINE = 1 << 20
MAX_PAYLOAD = 1 << 30

Facts = dict[str, Any]


def send(sock: socket.socket, facts: Mapping[str, object], payload: bytes = b"") -> None:
    """Send one message. Raises OSError when the other side has gone."""
    line = json.dumps({**facts, "size": len(payload)}).encode() + b"\n"
    if len(line) > MAX_LINE:
        raise ProtocolError(f"the message is too long ({len(line)} bytes; {MAX_LINE} are allowed)")
    sock.sendall(line + payload)


def receive(sock: socket.socket) -> tuple[Facts, bytes] | None:
    """The next message, None at the end. Raises ProtocolError, ChannelLost, OSError."""
    line = _line(sock)
    if line is None:
        return None
    try:
        facts = json.loads(line)
        size = facts.pop("size")
        if not isinstance(size, int) or not 0 <= size <= MAX_PAYLOAD:
            raise ValueError(f"a size of {size!r}")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ProtocolError(f"not a message: {line[:100]!r} ({error})") from error
    return facts, _exactly(sock, size)


def _line(sock: socket.socket) -> bytes | None:
    line = b""
    while True:
        seen = sock.recv(4096, socket.MSG_PEEK)
        if not seen:
            if line:
                raise ChannelLost("the other side went away in the middle of a message")
            return None
        end = seen.find(b"\n") + 1
        line += _exactly(sock, end or len(seen))
        if end:
            return line
        if len(line) > MAX_LINE:
            raise ProtocolError("the other side sends a line without an end")


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = sock.recv(min(size - len(data), 1 << 20))
        if not piece:
            raise ChannelLost("the other side went away in the middle of a message")
        data += piece
    return bytes(data)
