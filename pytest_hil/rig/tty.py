"""Where somebody connects to a board's serial line: a tty, as a USB adapter's.

The tty is a pty whose other end the line has. It has a name that stays, as udev's links have.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

from pytest_hil.rig.line import Line
from pytest_hil.rig.outside import process_name
from pytest_hil.rig.stream import Stream

_BEHIND = 4 * 2**20
# <sys/inotify.h>: IN_OPEN, IN_CLOSE_WRITE and IN_CLOSE_NOWRITE; struct inotify_event.
_OPENED = 0x20
_CLOSED = 0x08 | 0x10
_EVENT = struct.Struct("iIII")


class TtyOutside:
    """A pty. A second opener cannot be refused here (the kernel lets root in), only written down.

    The line keeps the tty open itself, so that it is not hung up when nobody else has it. Who has
    is read from /proc each time that it was opened or closed.
    """

    def __init__(self, line: Line, link: Path) -> None:
        self.link = link
        self._line = line
        self._master: Stream | None = None
        self._slave = -1
        self._name = ""
        self._watch: Stream | None = None
        self._there: set[int] = set()
        self._peer = ""
        self._overrun = False
        self._closed = False

    @property
    def console(self) -> dict[str, str]:
        return {"driver": "serial", "port": str(self.link)}

    @property
    def connected(self) -> bool:
        self.look()
        return bool(self._there)

    def appear(self) -> None:
        if self._master is not None or self._closed:
            return
        master, self._slave = os.openpty()
        self._name = os.ttyname(self._slave)
        tty.setraw(self._slave)
        self._master = Stream(
            self._line.loop, master, on_data=self._line.typed, on_room=self._caught_up
        )
        self._watch = Stream(self._line.loop, _watched(self._name), on_data=self._happened)
        new = self.link.with_suffix(".new")
        new.symlink_to(self._name)
        new.rename(self.link)

    def vanish(self) -> None:
        if self._master is None:
            return
        self.link.unlink(missing_ok=True)
        if self._watch is not None:
            self._watch.close()
            self._watch = None
        # The name goes with the last that has the tty open, the hang-up comes with the master.
        self._master.close()
        os.close(self._slave)
        self._master, self._slave = None, -1
        self._left()

    def send(self, data: bytes) -> None:
        if not self._there:
            self.look()
        if self._master is None or not self._there:
            return
        if self._master.pending > _BEHIND:
            if not self._overrun:
                self._line.record.add("overrun", peer=self._peer)
            self._overrun = True
            return
        self._master.write(data)

    def pause(self) -> None:
        if self._master is not None:
            self._master.pause()

    def resume(self) -> None:
        if self._master is not None:
            self._master.resume()

    def close(self) -> None:
        self._closed = True
        self.vanish()

    def _caught_up(self) -> None:
        self._overrun = False

    def look(self) -> None:
        """Who has it open now, and what is new about that."""
        if self._watch is not None:
            self._watch.drain()
        self._compare()

    def _happened(self, events: bytes) -> None:
        # Somebody may have closed it and opened it again before we see who has it.
        if len(self._there) == 1 and any(mask & _CLOSED for mask in _masks(events)):
            self._left()
        self._compare()

    def _compare(self) -> None:
        if self._master is None:
            return
        now = _holders(self._name, except_for=self._slave)
        if self._there and not self._there & now:
            self._left()
        if not now:
            return
        if not self._there:
            first = min(now)
            self._there = {first}
            self._peer = process_name(first)
            self._line.record.add("begin", peer=self._peer)
        for other in sorted(now - self._there):
            self._line.record.add(
                "violation", peer=process_name(other), detail=f"{self._peer} was connected"
            )
        self._there = now

    def _left(self) -> None:
        if not self._there:
            return
        self._there = set()
        self._line.record.add("end", peer=self._peer)
        if self._master is not None:
            self._master.forget()
            with contextlib.suppress(OSError, termios.error):
                # What it has not read is not for the next; its lock may have been left by a crash.
                fcntl.ioctl(self._slave, termios.TIOCNXCL)
                termios.tcflush(self._slave, termios.TCIOFLUSH)


def _watched(name: str) -> int:
    """An inotify descriptor that has something to read when a file was opened or closed."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(name), _OPENED | _CLOSED) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(number, os.strerror(number))
    return fd


def _masks(events: bytes) -> Iterator[int]:
    offset = 0
    while offset < len(events):
        _watch, mask, _cookie, length = _EVENT.unpack_from(events, offset)
        offset += _EVENT.size + length
        yield mask


def _holders(name: str, *, except_for: int) -> set[int]:
    """Processes that have a file open; ``except_for`` is a descriptor of ours that does not count.

    Nor does a child that has, between fork and exec, just its parent's.
    """
    mine = os.getpid()
    found: dict[int, set[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            with os.scandir(entry / "fd") as fds:
                numbers = {int(fd.name) for fd in fds if _target(fd.path) == name}
        except OSError:
            continue  # it has ended, or is somebody else's
        if numbers:
            found[int(entry.name)] = numbers
    children = {pid for pid in found if found[pid] <= found.get(_parent(pid), set())}
    return {pid for pid in found if found[pid] != {except_for} or pid != mine} - children


def _target(path: str) -> str:
    try:
        return os.readlink(path)  # noqa: PTH115
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return -1
    return int(stat[stat.rindex(b")") + 2 :].split()[1])
