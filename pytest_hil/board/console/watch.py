"""When a file's name appears: inotify(7), through the C library.

A device node comes and goes with its adapter, and so do the directories that udev makes for links
to it (``/dev/serial/by-id`` is not there without an adapter). So each directory above the name is
watched that is there, and those above what a link points at.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import struct
from fnmatch import fnmatch
from pathlib import Path

# <sys/inotify.h>
_IN_ATTRIB, _IN_MOVED_TO, _IN_CREATE = 0x4, 0x80, 0x100
_IN_DELETE_SELF, _IN_MOVE_SELF = 0x400, 0x800
_IN_Q_OVERFLOW, _IN_IGNORED, _IN_ONLYDIR = 0x4000, 0x8000, 0x01000000
# A node is made first and given to its group after: that is an attribute.
_MASK = _IN_CREATE | _IN_MOVED_TO | _IN_ATTRIB | _IN_DELETE_SELF | _IN_MOVE_SELF | _IN_ONLYDIR
_EVENT = struct.Struct("iIII")
_LINKS = 8


class Watch:
    """Says when something happened to ``path``, or to a directory above it.

    Its last part may be a pattern ("/dev/tty*"). Raises OSError when the host has no room for one
    more watch. A context manager.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._names: dict[int, set[str]] = {}
        self._blind = False
        self._fd = self._checked(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """The descriptor to poll for POLLIN."""
        return self._fd

    def missing(self) -> bool:
        """Whether nothing has that name now, so that there will be an event when it has."""
        return not self._blind and not any(self._path.parent.glob(self._path.name))

    def arm(self) -> None:
        """Watch what is there now. To be called before each look at the path, not after it."""
        self._names.clear()
        self._blind = False
        for place in _chain(self._path):
            # From the top: what is made meanwhile is made in a directory that is watched already.
            for directory in reversed(place.parents):
                self._add(directory, place.relative_to(directory).parts[0])

    def happened(self) -> bool:
        """Take the events that have come; whether one of them is about the path."""
        found = False
        while data := self._read():
            offset = 0
            while offset < len(data):
                wd, mask, _cookie, length = _EVENT.unpack_from(data, offset)
                offset += _EVENT.size
                name = data[offset : offset + length].rstrip(b"\0")
                offset += length
                found = self._is_ours(wd, mask, os.fsdecode(name)) or found
        return found

    def wait(self, timeout: float | None) -> bool:
        """Wait for events, for ``timeout`` seconds at most; whether one was about the path."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000)) and self.happened()

    def close(self) -> None:
        """Free the descriptor. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _add(self, directory: Path, name: str) -> None:
        path = os.fsencode(directory)
        wd = self._libc.inotify_add_watch(self._fd, ctypes.c_char_p(path), ctypes.c_uint32(_MASK))
        if wd >= 0:
            self._names.setdefault(wd, set()).add(name)
        elif ctypes.get_errno() not in (errno.ENOENT, errno.ENOTDIR):
            # Not ours to read, or one watch too many. (What is not there is told by what is above.)
            self._blind = True

    def _read(self) -> bytes:
        try:
            return os.read(self._fd, 64 * 1024)
        except BlockingIOError:
            return b""

    def _is_ours(self, wd: int, mask: int, name: str) -> bool:
        if mask & (_IN_Q_OVERFLOW | _IN_DELETE_SELF | _IN_MOVE_SELF):
            return True
        if mask & _IN_IGNORED:
            return False
        return any(fnmatch(name, pattern) for pattern in self._names.get(wd, ()))

    @staticmethod
    def _checked(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result


def _chain(path: Path) -> list[Path]:
    """A path, and what it points at, link by link."""
    found = [Path(os.path.normpath(path))]
    for _ in range(_LINKS):
        try:
            target = found[-1].readlink()
        except OSError:
            break
        found.append(Path(os.path.normpath(found[-1].parent / target)))
    return found
