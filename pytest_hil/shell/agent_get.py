"""Files and trees from the target: checked at both ends, published by rename."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path, PurePosixPath
from zlib import crc32

from pytest_hil.agent import protocol
from pytest_hil.agent.protocol import Data, Done, Entry, Event, Failed, FileEnd
from pytest_hil.errors import ProtocolError, TransferError
from pytest_hil.shell.agent_channel import Channel, Operation, cost
from pytest_hil.shell.agent_transfer import STALL, Refused
from pytest_hil.shell.patient_writer import Late

_WINDOW = 1024 * 1024
"""Bytes that may be under way."""


def get(channel: Channel, remote: str, local: str | os.PathLike[str]) -> None:
    """Copy a file or a directory from the target.

    ``local`` is the name that it gets, or with ``/`` at its end, the directory that it gets
    into. It replaces and merges as :func:`put` does. Permission bits and times are kept, owners
    are not. Nothing is written outside of ``local``, whatever the target sends.

    Raises TransferError, saying which file and why.
    """
    into = os.fspath(local).endswith("/")
    dest = Path(local) / PurePosixPath(remote).name if into else Path(local)
    what = f"get {channel.name}:{remote} to {dest}"
    with channel.operation(what, credit=_WINDOW) as operation:
        try:
            with _Receiver(operation, dest) as receiver:
                request = protocol.get(operation.number, remote, credit=_WINDOW)
                operation.send(request, time.monotonic() + STALL)
                while not receiver.take(operation.next(time.monotonic() + STALL)):
                    pass
                receiver.publish()
        except Refused as refused:
            raise TransferError(f"{what}: {refused.text}") from None
        except Late:
            raise TransferError(f"{what}: the target sent nothing for {STALL:g} s") from None
        except (OSError, ValueError) as error:
            raise TransferError(f"{what}: {error}") from error


class _Receiver:
    """Builds what comes in, in a directory beside its destination that goes with the context."""

    def __init__(self, operation: Operation, dest: Path) -> None:
        self._operation = operation
        self._dest = dest
        self._root = Path()
        self._directories: dict[Path, Entry] = {}
        self._symlinks: list[tuple[Path, Entry]] = []
        self._open: tuple[Path, Entry, int] | None = None  # and its descriptor
        self._crc = self._size = self._digest = self._total = 0
        self._not_granted = 0

    def __enter__(self) -> _Receiver:
        above = tempfile.mkdtemp(prefix=".hil-get-", dir=self._dest.parent)
        self._root = Path(above) / "root"
        return self

    def __exit__(self, *exc: object) -> None:
        if self._open is not None:
            os.close(self._open[2])
        shutil.rmtree(self._root.parent, ignore_errors=True)

    def take(self, event: Event) -> bool:
        """Whether that was the last."""
        match event:
            case Data():
                self._data(event)
            case Entry():
                self._entry(event)
            case FileEnd():
                self._file_end(event)
            case Failed():
                raise Refused(event.text)
            case Done():
                self._done(event)
                return True
            case _:
                raise ProtocolError(f"{self._operation.what}: unexpected {event}")
        return False

    def _path(self, name: str) -> Path:
        """Where an entry goes: only into directories of this transfer, never through a link."""
        if not name:
            if self._root in self._directories or self._open or self._symlinks:
                raise ProtocolError(f"{self._operation.what}: a second root")
            return self._root
        pure = PurePosixPath(name)
        path = self._root / pure
        if pure.is_absolute() or ".." in pure.parts or path.parent not in self._directories:
            raise ProtocolError(f"{self._operation.what}: {name!r} leads out of it")
        return path

    def _entry(self, entry: Entry) -> None:
        self._granted(entry)
        if self._open is not None:
            raise ProtocolError(f"{self._operation.what}: an entry inside a file")
        path = self._path(entry.name)
        match entry.kind:
            case "f":
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._open = (path, entry, fd)
                self._crc = self._size = 0
            case "d":
                path.mkdir(0o700)
                self._directories[path] = entry
            case "l":
                self._symlinks.append((path, entry))
            case _:
                raise ProtocolError(f"{self._operation.what}: an entry of kind {entry.kind!r}")

    def _data(self, event: Data) -> None:
        if self._open is None:
            raise ProtocolError(f"{self._operation.what}: bytes of no file")
        self._crc = crc32(event.payload, self._crc)
        self._size += len(event.payload)
        view = memoryview(event.payload)
        while view:
            view = view[os.write(self._open[2], view) :]
        self._granted(event)

    def _granted(self, event: Data | Entry) -> None:
        """Give back its credit, in large pieces."""
        self._not_granted += cost(event)
        if self._not_granted >= _WINDOW // 4:
            size, self._not_granted = self._not_granted, 0
            self._operation.grant(size, time.monotonic() + STALL)

    def _file_end(self, end: FileEnd) -> None:
        if self._open is None:
            raise ProtocolError(f"{self._operation.what}: the end of no file")
        _path, entry, fd = self._open
        if (end.size, end.crc) != (self._size, self._crc):
            raise TransferError(
                f"{self._operation.what}: {entry.name or 'the file'}: sent {end.size} bytes with "
                f"CRC {end.crc:08x}, received {self._size} with {self._crc:08x}"
            )
        os.fchmod(fd, entry.mode & 0o777)
        os.utime(fd, ns=(entry.mtime, entry.mtime))
        self._open = None
        os.close(fd)
        self._digest = crc32(end.crc.to_bytes(4, "little"), self._digest)
        self._total += end.size

    def _done(self, done: Done) -> None:
        if self._open is not None or (done.size, done.digest) != (self._total, self._digest):
            raise ProtocolError(
                f"{self._operation.what}: received {self._total} bytes with digest "
                f"{self._digest:08x}, but the target says {done}"
            )

    def publish(self) -> None:
        """Symlinks and directories' looks last, so that nothing can go through or be in the way."""
        for path, entry in self._symlinks:
            path.symlink_to(entry.target)
        for path, entry in reversed(self._directories.items()):
            path.chmod(entry.mode & 0o777 | 0o700)
            os.utime(path, ns=(entry.mtime, entry.mtime))
        _publish(self._root, self._dest)


def _publish(source: Path, dest: Path) -> None:
    """Rename; a directory onto one that is not empty goes in entry by entry."""
    try:
        source.replace(dest)
        return
    except OSError:
        if source.is_symlink() or not source.is_dir() or not dest.is_dir():
            raise
    for child in source.iterdir():
        _publish(child, dest / child.name)
