"""The kernel's initramfs format (Documentation/driver-api/early-userspace/buffer-format.rst).

A pure function from entries to bytes: the same tree gives the same archive.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator

from pytest_hil.qemu.image.tree import Entry

_MAGIC = b"070701"
_TRAILER = "TRAILER!!!"
_ALIGN = 4


def archive(entries: Iterable[tuple[str, Entry]]) -> bytes:
    """A "newc" archive of (path, entry); parents must come before what is in them."""
    return b"".join(_chunks(entries))


def _chunks(entries: Iterable[tuple[str, Entry]]) -> Iterator[bytes]:
    number = 0
    for number, (path, entry) in enumerate(entries, start=1):
        yield from _member(number, path, entry)
    yield from _member(number + 1, _TRAILER, Entry(0))


def _member(number: int, path: str, entry: Entry) -> Iterator[bytes]:
    """Header, name and data, the last two padded to four bytes.

    Times are zero and inode numbers count up: nothing of the host gets in.
    """
    name = path.encode() + b"\0"
    fields = (
        number,
        entry.mode,
        entry.uid,
        entry.gid,
        2 if stat.S_ISDIR(entry.mode) else 1,
        0,  # mtime
        len(entry.data),
        0,  # major, minor of the file system
        0,
        *entry.device,
        len(name),
        0,  # checksum: only "070702" has one
    )
    header = _MAGIC + b"".join(b"%08X" % field for field in fields)
    yield header + name + _padding(len(header) + len(name))
    if entry.data:
        yield entry.data
        yield _padding(len(entry.data))


def _padding(length: int) -> bytes:
    return bytes(-length % _ALIGN)
