"""gcc's coverage files, read just far enough to know what they are and whether they are whole.

A file is a header (magic, version, stamp; from gcc 12 on a checksum in .gcda), then records (tag,
length, data), and in a .gcda that a program wrote, a word of zero. gcov itself takes whatever is
there: of a truncated file it counts the first half, of a foreign one it says 0 %. Layout: gcc's
gcc/gcov-io.h; the kernel writes the same without the last word (its kernel/gcov/gcc_4_7.c).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Final, Literal

from pytest_hil.errors import CoverageError

_DATA: Final = b"gcda"
_NOTES: Final = b"gcno"
_FUNCTION: Final = 0x01000000
_COUNTERS: Final = 0x01A10000
_SUMMARY: Final = 0xA1000000
# So much is read of a .gcno: only its header is of interest.
_HEADER: Final = 12
# No compilation unit has counters of more; who says so is wrong.
MAX_SIZE: Final = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Header:
    """``gcc`` is the compiler's major version; ``stamp`` is the same in the two files of a unit."""

    gcc: int
    stamp: int
    order: Literal["<", ">"]


def read_notes(path: Path) -> Header:
    """The header of a .gcno. Raises CoverageError when it is none."""
    try:
        with path.open("rb") as file:
            start = file.read(_HEADER)
    except OSError as error:
        raise CoverageError(f"{path} cannot be read: {error.strerror}") from None
    return _header(start, _NOTES, str(path))


def read_data(data: bytes, name: str, *, kernel: bool = False) -> Header:
    """The header of a .gcda, after a walk through all of its records.

    ``kernel``: the kernel's, which end without a mark. Raises CoverageError, which begins with
    ``name``, when it is truncated or no such file.
    """
    header = _header(data, _DATA, name)
    at = _HEADER + 4 * (header.gcc >= 12)
    unit = 1 if header.gcc >= 12 else 4
    open_function = False
    while at < len(data):
        if len(data) - at < 4:
            raise _truncated(name, len(data), "in the middle of a word")
        (tag,) = struct.unpack_from(f"{header.order}I", data, at)
        if tag == 0:
            return _ended(header, data, at, name)
        if len(data) - at < 8:
            raise _truncated(name, len(data), "between a record's tag and its length")
        (length,) = struct.unpack_from(f"{header.order}i", data, at + 4)
        # Counters that are all zero are written as their negative size, and without data.
        end = at + 8 + max(0, length) * unit
        if end > len(data):
            raise _truncated(name, len(data), f"in a record of {end - at} bytes at {at}")
        # A function whose record is empty is another unit's, and has no counters.
        open_function = length != 0 if tag == _FUNCTION else open_function and tag < _COUNTERS
        at = end
    if not kernel:
        raise _truncated(name, len(data), "before its end mark")
    if at != len(data) or open_function:
        raise _truncated(name, len(data), "before the counters of its last function")
    return header


def add(one: bytes, other: bytes) -> bytes | None:
    """The sum of two whole .gcda of one unit, as libgcov would have made it; None if they differ.

    They differ when they are of two builds, or have counters that are not simply added.
    """
    first, second = read_data(one, "the first"), read_data(other, "the second")
    at = _HEADER + 4 * (first.gcc >= 12)
    if first != second or one[:at] != other[:at]:
        return None
    out = [one[:at]]
    for mine, its in zip_longest(_records(one, first, at), _records(other, second, at)):
        if mine is None or its is None or mine[0] != its[0] or abs(mine[1]) != abs(its[1]):
            return None
        tag, length, body = mine
        if tag == _COUNTERS:
            length, body = _sum(first.order, mine, its)
        elif tag == _SUMMARY:
            (runs, most), (more_runs, more) = (
                struct.unpack(f"{first.order}2I", each[2]) for each in (mine, its)
            )
            body = struct.pack(f"{first.order}2I", runs + more_runs, max(most, more))
        elif tag > _COUNTERS or body != its[2]:
            return None
        out.append(struct.pack(f"{first.order}Ii", tag, length) + body)
    return b"".join([*out, bytes(4)])


def _records(data: bytes, header: Header, at: int) -> Iterator[tuple[int, int, bytes]]:
    """The records of a whole file: tag, length as it is written, content."""
    unit = 1 if header.gcc >= 12 else 4
    while at < len(data) - 4:
        tag, length = struct.unpack_from(f"{header.order}Ii", data, at)
        end = at + 8 + max(0, length) * unit
        yield tag, length, data[at + 8 : end]
        at = end


def _sum(
    order: str, one: tuple[int, int, bytes], other: tuple[int, int, bytes]
) -> tuple[int, bytes]:
    """Counters are numbers of 64 bits, the lower word first in either byte order."""
    if one[1] < 0 or other[1] < 0:
        # Those that are all zero are not there.
        return (other if one[1] < 0 else one)[1:]
    words = f"{order}{len(one[2]) // 4}I"
    mine, its = struct.unpack(words, one[2]), struct.unpack(words, other[2])
    out = []
    for low in range(0, len(mine), 2):
        total = mine[low] + its[low] + ((mine[low + 1] + its[low + 1]) << 32)
        out += [total & 0xFFFFFFFF, total >> 32 & 0xFFFFFFFF]
    return one[1], struct.pack(words, *out)


def _header(data: bytes, magic: bytes, name: str) -> Header:
    if len(data) < _HEADER:
        raise _truncated(name, len(data), "in its header")
    order: Literal["<", ">"]
    if data[:4] == magic[::-1]:
        order = "<"
    elif data[:4] == magic:
        order = ">"
    else:
        raise CoverageError(f"{name} is no .{magic.decode()} file: it begins with {data[:4]!r}")
    version = data[7:3:-1] if order == "<" else data[4:8]
    (stamp,) = struct.unpack_from(f"{order}I", data, 8)
    return Header(_major(version, name), stamp, order)


def _major(version: bytes, name: str) -> int:
    """``B22*`` is gcc 12.2."""
    letter, digit = version[0] - ord("A"), version[1] - ord("0")
    if not (0 <= letter < 26 and 0 <= digit <= 9) or letter * 10 + digit < 9:
        raise CoverageError(
            f"{name} is of a compiler that it calls {version.decode('latin1')!r}",
            mend="use gcc 9 or later; clang writes an older format that gcc's gcov cannot read",
        )
    return letter * 10 + digit


def _ended(header: Header, data: bytes, at: int, name: str) -> Header:
    if rest := len(data) - at - 4:
        raise CoverageError(f"{name} goes on for {rest} bytes after its end mark")
    return header


def _truncated(name: str, size: int, where: str) -> CoverageError:
    return CoverageError(
        f"{name} is truncated: it ends after {size} bytes, {where}; nothing of it was counted",
        mend="its program was killed, or the disk was full, while it wrote its counters",
    )
