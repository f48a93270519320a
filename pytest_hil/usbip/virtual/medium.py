"""What a stick keeps its blocks in: a file, or memory."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from pathlib import Path

from pytest_hil.errors import ConfigError, InfrastructureError


class FileMedium:
    """A file that nobody else uses as a stick. ``size`` is cut to whole blocks.

    Read and not mapped: a mapped file that somebody shortens kills who reads it.
    """

    def __init__(self, fd: int, *, block_size: int, read_only: bool, name: str) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size // block_size * block_size
        self.name = name
        self.read_only = read_only

    def read(self, offset: int, length: int) -> memoryview:
        data = os.pread(self._fd, length, offset)
        if len(data) != length:
            raise OSError(errno.EIO, f"{self.name} is shorter than it was")
        return memoryview(data)

    def write(self, offset: int, data: memoryview) -> None:
        while data:
            count = os.pwrite(self._fd, data, offset)
            data, offset = data[count:], offset + count

    def flush(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        """Let the file go. May be called twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def open_file(path: Path, *, block_size: int, read_only: bool) -> FileMedium:
    """Raises ConfigError if it is none or too small, InfrastructureError if another has it."""
    try:
        fd = os.open(path, os.O_CLOEXEC | (os.O_RDONLY if read_only else os.O_RDWR))
    except OSError as error:
        raise ConfigError(
            "MassStorage", f"{path} cannot be opened: {error.strerror}", mend=_mend(error, path)
        ) from None
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise InfrastructureError(
            f"{path} is in use as a stick already",
            mend="give each its own copy, or all of them read_only=True",
        ) from None
    found = FileMedium(fd, block_size=block_size, read_only=read_only, name=str(path))
    if not found.size:
        found.close()
        raise ConfigError("MassStorage", f"{path} has no room for one block of {block_size} bytes")
    return found


def _mend(error: OSError, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return f"make one: truncate -s 64M {path}"
    return "read_only=True asks for less" if isinstance(error, PermissionError) else ""


def in_memory(content: bytes | bytearray | int, *, block_size: int, read_only: bool) -> FileMedium:
    """Of these bytes, or of so many zeros, which cost nothing until they are written."""
    size = content if isinstance(content, int) else len(content)
    if size <= 0 or size % block_size:
        raise ConfigError(
            "MassStorage", f"its size is {size}; whole blocks of {block_size} bytes are wanted"
        )
    fd = os.memfd_create("hil-stick")
    try:
        os.truncate(fd, size)
        if not isinstance(content, int):
            with mmap.mmap(fd, size) as memory:
                memory[:] = bytes(content)
    except BaseException:
        os.close(fd)
        raise
    return FileMedium(fd, block_size=block_size, read_only=read_only, name="its memory")
