"""Which shared libraries a program needs (gABI, "Dynamic Section")."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB = 1, 5


@dataclass(frozen=True, slots=True)
class Needs:
    """``interpreter``: the dynamic linker's path ("" if static); ``libraries``: sonames."""

    interpreter: str = ""
    libraries: tuple[str, ...] = ()


def needs(data: bytes) -> Needs:
    """What a program or library needs to run; nothing for what is no (sound) ELF file."""
    if data[:4] != b"\x7fELF" or len(data) < 52 or data[5] != 1:
        return Needs()
    try:
        return _read(data)
    except (struct.error, ValueError, OverflowError):
        return Needs()


def _read(data: bytes) -> Needs:
    segments = list(_segments(data))
    interpreter = ""
    dynamic: dict[int, list[int]] = {}
    for kind, offset, _address, size in segments:
        if kind == _PT_INTERP:
            interpreter = data[offset : offset + size].rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            word = "Q" if data[4] == 2 else "I"
            step = struct.calcsize(word) * 2
            for at in range(offset, offset + size - step + 1, step):
                tag, value = struct.unpack_from(f"<{word}{word}", data, at)
                dynamic.setdefault(tag, []).append(value)
    names = []
    if _DT_STRTAB in dynamic:
        strings = _file_offset(segments, dynamic[_DT_STRTAB][0])
        for value in dynamic.get(_DT_NEEDED, []):
            names.append(data[strings + value : data.index(b"\0", strings + value)].decode())
    return Needs(interpreter, tuple(names))


def _segments(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    """(type, offset, virtual address, size in the file) of each program header."""
    if data[4] == 2:
        (table,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
    else:
        (table,) = struct.unpack_from("<I", data, 28)
        size, count = struct.unpack_from("<HH", data, 42)
    for at in range(table, table + size * count, size or 1):
        if data[4] == 2:
            kind, _flags, offset, address, _pa, length = struct.unpack_from("<IIQQQQ", data, at)
        else:
            kind, offset, address, _pa, length = struct.unpack_from("<IIIII", data, at)
        yield kind, offset, address, length


def _file_offset(segments: list[tuple[int, int, int, int]], address: int) -> int:
    for kind, offset, start, size in segments:
        if kind == _PT_LOAD and start <= address < start + size:
            return address - start + offset
    raise ValueError(f"no segment has the address {address:#x}")
