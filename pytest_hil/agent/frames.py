"""Frames: the layer below :mod:`pytest_hil.agent.protocol`, which describes both."""

from __future__ import annotations

import enum
import struct
from typing import NamedTuple
from zlib import crc32

MAX_PAYLOAD = 65536
MAGIC = b"\x1bHIL"
_HEADER = struct.Struct("<4sBBHIII")
HEADER_SIZE = _HEADER.size


class FrameType(enum.IntEnum):
    """The host says those below 32; DATA, CREDIT, ENTRY and FILE_END go both ways."""

    HELLO = 1
    EXEC = 2
    DATA = 3
    CREDIT = 4
    CANCEL = 5
    PUT = 6
    ENTRY = 7
    FILE_END = 8
    COMMIT = 9
    GET = 10
    PERSONALISE = 11
    SYNC = 12
    POWER = 13
    HELLO_OK = 32
    READY = 33
    DONE = 34
    EXIT = 35
    ERROR = 36


class Frame(NamedTuple):
    """One frame as it came. A named tuple: there are thousands of them in a large file."""

    type: int
    flags: int
    operation: int
    payload: bytes


def pack(type: int, operation: int = 0, payload: bytes = b"", flags: int = 0) -> bytes:
    """A frame, ready to be sent."""
    crc = 0 if type == FrameType.DATA else crc32(payload)
    size = len(payload)
    bare = _HEADER.pack(MAGIC, type, flags, 0, operation, size, crc)
    return _HEADER.pack(MAGIC, type, flags, crc32(bare) & 0xFFFF, operation, size, crc) + payload


class Decoder:
    """Cuts a byte stream into frames. Holds at most one frame's bytes.

    ``skipped`` counts the bytes that were no frame's, ``damaged`` the frames whose payload's
    checksum was wrong.
    """

    def __init__(self) -> None:
        self._rest = b""
        self.skipped = 0
        self.damaged = 0

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now. Never raises."""
        data = self._rest + data if self._rest else data
        frames: list[Frame] = []
        at = 0
        while len(data) - at >= HEADER_SIZE:
            magic, type_, flags, check, operation, size, crc = _HEADER.unpack_from(data, at)
            bare = _HEADER.pack(magic, type_, flags, 0, operation, size, crc)
            if magic != MAGIC or size > MAX_PAYLOAD or crc32(bare) & 0xFFFF != check:
                start = at
                at = data.find(MAGIC[:1], at + 1)
                at = len(data) if at < 0 else at
                self.skipped += at - start
                continue
            end = at + HEADER_SIZE + size
            if end > len(data):
                break
            payload = data[at + HEADER_SIZE : end]
            if type_ != FrameType.DATA and crc32(payload) != crc:
                self.damaged += 1
            else:
                frames.append(Frame(type_, flags, operation, payload))
            at = end
        self._rest = data[at:]
        return frames
