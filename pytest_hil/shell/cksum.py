"""The checksum of POSIX's cksum(1), which every target has."""

from __future__ import annotations

from zlib import crc32

_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def cksum(data: bytes) -> int:
    """As ``cksum`` prints it: a CRC-32 with the most significant bit first, over the data and its
    length (POSIX.1-2017, cksum). That of zlib has the bits the other way round."""
    size = len(data)
    length = size.to_bytes((size.bit_length() + 7) // 8, "little")
    mirrored = crc32((data + length).translate(_REVERSED), 0xFFFFFFFF)
    return int(f"{mirrored:032b}"[::-1], 2)
