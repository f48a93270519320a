"""The files of a guest, before they become an archive.

The tree is merged-/usr: ``/bin``, ``/sbin``, ``/lib`` and ``/lib64`` are symbolic links into
``/usr``, so that old and new Debian packages agree on where things are.
"""

from __future__ import annotations

import posixpath
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from pytest_hil.errors import ImageError

MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file. ``mode`` has the file type bits; ``data`` is a link's target for a symbolic link.

    ``device`` is (major, minor) for device nodes.
    """

    mode: int
    data: bytes = b""
    uid: int = 0
    gid: int = 0
    device: tuple[int, int] = (0, 0)


class Tree:
    """Paths (relative, without a leading slash) and what is there."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        for name in ("bin", "sbin", "lib"):
            self.directory(f"usr/{name}")
            self._entries[name] = Entry(stat.S_IFLNK | 0o777, f"usr/{name}".encode())

    def add(self, path: str, entry: Entry) -> None:
        """Put an entry at a path, with its parent directories; what was there is replaced."""
        place = normal(path)
        top = place.partition("/")[0]
        if top in MERGED:
            self._merge(top)
            if place == top:
                return
            place = f"usr/{place}"
        old = self._entries.get(place)
        if old is not None and stat.S_ISDIR(entry.mode):
            if stat.S_ISDIR(old.mode):
                self._entries[place] = entry
            return  # a package's directory never replaces a link: /var/run, /lib
        self._parents(place)
        self._entries[place] = entry

    def file(self, path: str, data: bytes, mode: int = 0o644) -> None:
        self.add(path, Entry(stat.S_IFREG | mode, data))

    def directory(self, path: str, mode: int = 0o755) -> None:
        self.add(path, Entry(stat.S_IFDIR | mode))

    def link(self, path: str, target: str) -> None:
        self.add(path, Entry(stat.S_IFLNK | 0o777, target.encode()))

    def node(self, path: str, mode: int, major: int, minor: int) -> None:
        """A character device."""
        self.add(path, Entry(stat.S_IFCHR | mode, device=(major, minor)))

    def get(self, path: str) -> Entry | None:
        place = normal(path)
        if place.partition("/")[0] in MERGED:
            place = f"usr/{place}"
        return self._entries.get(place)

    def real(self, path: str) -> str | None:
        """The path with symbolic links followed; None when there is nothing there."""
        for _ in range(40):
            place = normal(path)
            if place.partition("/")[0] in MERGED:
                place = f"usr/{place}"
            entry = self._entries.get(place)
            if entry is None:
                return None
            if not stat.S_ISLNK(entry.mode):
                return place
            path = posixpath.join(posixpath.dirname(place), entry.data.decode())
        return None

    def __contains__(self, path: str) -> bool:
        return self.get(path) is not None

    def items(self) -> Iterator[tuple[str, Entry]]:
        """Sorted by path, so parents come before what is in them."""
        yield from sorted(self._entries.items())

    @property
    def size(self) -> int:
        """Bytes of memory that the unpacked files take (in whole pages, as tmpfs does)."""
        return sum(-(-len(e.data) // 4096) * 4096 for e in self._entries.values() if e.data)

    def _merge(self, top: str) -> None:
        if top not in self._entries:
            self.directory(f"usr/{top}")
            self._entries[top] = Entry(stat.S_IFLNK | 0o777, f"usr/{top}".encode())

    def _parents(self, place: str) -> None:
        parent = posixpath.dirname(place)
        if not parent or place == ".":
            return
        have = self._entries.get(parent)
        if have is None:
            self._parents(parent)
            self._entries[parent] = Entry(stat.S_IFDIR | 0o755)
        elif not stat.S_ISDIR(have.mode):
            raise ImageError(f"/{place} cannot be in the image: /{parent} is no directory")


def normal(path: str) -> str:
    """A path inside the guest without leading slash, ``.`` and ``..``; never above its root."""
    return posixpath.normpath("/" + path).lstrip("/") or "."
