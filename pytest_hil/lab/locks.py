"""Locks that the kernel drops with their holder, and bells that wake who waits.

The locks are of flock(2): they belong to the open file, so two threads of a process exclude each
other as two processes do. A child must not keep one alive: exec closes it, and so does the hook
below in a child that Python forks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import threading
from pathlib import Path

# What is open: a forked child closes it. Whoever opens or closes holds the other one, so that no
# fork comes in between.
_open: set[int] = set()
_opening = threading.RLock()


class Lock:
    """An exclusive lock on a file, made by :meth:`take`. Any thread may free it, and twice."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._pid = os.getpid()

    @classmethod
    def take(cls, path: Path, *, wait: bool) -> Lock | None:
        """Lock a file, which is made if it is not there; None when it is held and not waited for.

        Raises OSError.
        """
        fd = _opened(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            _close(fd)
            return None
        except BaseException:
            _close(fd)
            raise
        return cls(fd)

    @property
    def ours(self) -> bool:
        """Whether this process holds it: not one that was forked from its holder."""
        return self._fd >= 0 and self._pid == os.getpid()

    def write(self, text: str) -> None:
        """Replace what stands in the file: a word for people."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text.encode(), 0)

    def free(self) -> None:
        """Let go of it, whoever else has inherited it."""
        with _opening:
            if not self.ours:
                return
            fd, self._fd = self._fd, -1
            fcntl.flock(fd, fcntl.LOCK_UN)
            _close(fd)


class Bell:
    """A FIFO that one process reads and any may ring. Its lock says that its owner lives."""

    def __init__(self, directory: Path) -> None:
        """Raises OSError."""
        self.path = directory / f"{os.getpid()}-{secrets.token_hex(6)}"
        os.mkfifo(self.path, 0o600)
        # Its mode is the directory's: those who may use that may ring.
        self.path.chmod(stat.S_IMODE(directory.stat().st_mode) & 0o666)
        with _opening:
            # For writing too: else it would be at its end whenever nobody rings.
            self._fd = os.open(self.path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            _open.add(self._fd)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def fileno(self) -> int:
        return self._fd

    def quiet(self) -> None:
        """Forget that it was rung."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._fd, 4096):
                pass

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        with _opening:
            _close(self._fd)


def ring(path: Path) -> None:
    """Wake who waits at a bell; nothing if that is gone."""
    with contextlib.suppress(OSError):  # nobody has it open, or it was rung very often
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(fd, b"!")
        finally:
            os.close(fd)


def is_held(path: Path) -> bool:
    """Whether somebody has the lock of a file. Raises OSError but when there is no such file."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(fd)


def _opened(path: Path) -> int:
    with _opening:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            fd = os.open(path, flags)
        except FileNotFoundError:
            try:
                fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                fd = os.open(path, flags)
            else:
                os.fchmod(fd, stat.S_IMODE(path.parent.stat().st_mode) & 0o666)
        _open.add(fd)
        return fd


def _close(fd: int) -> None:
    with _opening:
        _open.discard(fd)
        os.close(fd)


def _forked() -> None:
    """In a child: nothing of it is ours. To close it frees nothing, as the parent has it, too."""
    _opening.release()
    while _open:
        with contextlib.suppress(OSError):
            os.close(_open.pop())


os.register_at_fork(
    before=_opening.acquire, after_in_parent=_opening.release, after_in_child=_forked
)
