"""What is built or fetched once and used by many runs: a directory of published directories.

An entry is ``root/kind/key/``. It is built in a temporary directory beside it, under a lock,
and published by one rename, so a reader sees all of it or nothing, whoever is killed at
whatever moment. An entry is complete when it has its ``manifest.json``.

The locks are :func:`fcntl.flock` and not filelock's, for two reasons: waiting for one is one
blocking call and no polling, and the file can say who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.errors import ImageError, NoRoom
from pytest_hil.progress import Progress, silent

MANIFEST = "manifest.json"
_USED = ".used"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+~-]{0,200}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One published directory. ``size`` in bytes on disk, ``used`` in seconds since the epoch."""

    kind: str
    key: str
    path: Path
    size: int
    used: float


class Cache:
    """The published directories below ``root``. Holds no state: any number of them may be made."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def default(cls) -> Cache:
        """$PYTEST_HIL_CACHE, else $XDG_CACHE_HOME/pytest-hil, else ~/.cache/pytest-hil."""
        if own := os.environ.get("PYTEST_HIL_CACHE"):
            return cls(Path(own).absolute())
        shared = os.environ.get("XDG_CACHE_HOME", "")
        # The XDG specification: a relative path there is invalid and must be ignored.
        base = Path(shared) if shared.startswith("/") else Path.home() / ".cache"
        return cls(base / "pytest-hil")

    def get(self, kind: str, key: str) -> Path | None:
        """The entry's directory, or None when there is none."""
        path = self._path(kind, key)
        return path if (path / MANIFEST).is_file() else None

    def make(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        *,
        progress: Progress = silent,
    ) -> Path:
        """The entry's directory; ``build`` fills an empty directory for it when there is none.

        One process builds, the others wait for it. Raises NoRoom when the disk is full and
        ImageError when the cache cannot be written; what ``build`` raises passes through.
        """
        if (found := self.get(kind, key)) is not None:
            self._touch(found)
            return found
        with self.locked(kind, key, progress=progress):
            if (found := self.get(kind, key)) is None:
                with _described(self.root):
                    found = self._build(kind, key, build)
        self._touch(found)
        return found

    def replace(
        self,
        kind: str,
        key: str,
        build: Callable[[Path], None],
        *,
        progress: Progress = silent,
    ) -> Path:
        """As :meth:`make`, but builds anew; the old entry is there until the new one is."""
        with self.locked(kind, key, progress=progress), _described(self.root):
            return self._build(kind, key, build)

    def remember(
        self,
        kind: str,
        key: str,
        ask: Callable[[], dict[str, Any]],
        *,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """Small facts that cost time to find out; found out each time where nothing can be kept."""
        facts: dict[str, Any] | None = None

        def build(directory: Path) -> None:
            nonlocal facts
            facts = ask()
            (directory / MANIFEST).write_text(json.dumps(facts))

        try:
            made = self.make(kind, key, build, progress=progress)
            found = json.loads((made / MANIFEST).read_text())
            if isinstance(found, dict):
                return found
        except (ImageError, NoRoom, OSError, ValueError):
            pass
        return ask() if facts is None else facts

    def remove(self, kind: str, key: str) -> bool:
        """Remove an entry; False when there was none. Who has its files open keeps them."""
        path = self._path(kind, key)
        if not path.is_dir():
            return False
        with self.locked(kind, key), _described(self.root):
            return self._discard(path)

    def prune(self, kind: str, *, unused_for: float) -> list[Entry]:
        """Remove and return the entries that nobody has used for so many seconds."""
        limit = time.time() - unused_for
        old = [entry for entry in self.entries(kind) if entry.used < limit]
        return [entry for entry in old if self.remove(kind, entry.key)]

    def entries(self, kind: str) -> list[Entry]:
        """All entries of a kind, the last used first."""
        folder = self.root / kind
        found = []
        for path in folder.iterdir() if folder.is_dir() else ():
            if not _NAME.fullmatch(path.name) or self.get(kind, path.name) is None:
                continue
            with contextlib.suppress(FileNotFoundError):  # removed while we look
                used = _mtime(path / _USED) or path.stat().st_mtime
                found.append(Entry(kind, path.name, path, _disk_size(path), used))
        return sorted(found, key=lambda entry: (-entry.used, entry.key))

    @contextlib.contextmanager
    def locked(self, kind: str, key: str, *, progress: Progress = silent) -> Iterator[None]:
        """Hold the exclusive lock of an entry; say who has it while waiting for it.

        The kernel drops it when its holder dies.
        """
        path = self._path(kind, key)
        lock = path.parent / f".{key}.lock"
        with _described(self.root):
            lock.parent.mkdir(parents=True, exist_ok=True)
            fd = _take(
                lock,
                wait=True,
                on_wait=lambda who: progress(f"waiting for {who} to make {kind}/{key}"),
            )
        assert fd is not None  # it waits for ever
        try:
            with _described(self.root):
                self._reap(path.parent, held=key)
            yield
        finally:
            _release(fd, lock)

    def _build(self, kind: str, key: str, build: Callable[[Path], None]) -> Path:
        path = self._path(kind, key)
        new = Path(tempfile.mkdtemp(prefix=f".{key}.tmp-", dir=path.parent))
        try:
            build(new)
            manifest = new / MANIFEST
            if not manifest.exists():
                manifest.write_text("{}\n")
            new.chmod(0o755)
            self._discard(path)
            new.rename(path)
        finally:
            # After the rename there is nothing here any more.
            shutil.rmtree(new, ignore_errors=True)
        return path

    def _discard(self, path: Path) -> bool:
        """Take a directory away from its name at once, then delete it."""
        gone = Path(tempfile.mkdtemp(prefix=f".{path.name}.tmp-", dir=path.parent))
        try:
            path.rename(gone)
        except FileNotFoundError:
            return False
        finally:
            shutil.rmtree(gone, ignore_errors=True)
        return True

    def _reap(self, folder: Path, *, held: str) -> None:
        """Delete the temporary directories of builders who died."""
        for left in folder.glob(".*.tmp-*"):
            key = left.name[1:].rpartition(".tmp-")[0]
            if key == held:
                shutil.rmtree(left, ignore_errors=True)
                continue
            lock = folder / f".{key}.lock"
            if (fd := _take(lock, wait=False)) is not None:
                shutil.rmtree(left, ignore_errors=True)
                _release(fd, lock)

    def _path(self, kind: str, key: str) -> Path:
        for name in (kind, key):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a cache entry")
        return self.root / kind / key

    def _touch(self, path: Path) -> None:
        """Note the use; a cache that we may only read keeps no such notes."""
        with contextlib.suppress(OSError):
            (path / _USED).touch()


def _take(
    lock: Path, *, wait: bool, on_wait: Callable[[str], None] = lambda _who: None
) -> int | None:
    """Lock a lock file; None when it is held and ``wait`` is false."""
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    os.close(fd)
                    return None
                on_wait(os.pread(fd, 100, 0).decode(errors="replace").strip() or "another process")
                fcntl.flock(fd, fcntl.LOCK_EX)
            # Who releases a lock unlinks its file: what we hold may be nobody's file any more.
            if _same_file(fd, lock):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _release(fd: int, lock: Path) -> None:
    with contextlib.suppress(OSError):
        lock.unlink()
    os.close(fd)


def _same_file(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _mtime(path: Path) -> float | None:
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return None


def _disk_size(path: Path) -> int:
    """Bytes on disk of all files below a directory; holes do not count."""
    return sum(
        os.lstat(Path(folder) / name).st_blocks * 512
        for folder, _dirs, names in os.walk(path)
        for name in names
    )


@contextlib.contextmanager
def _described(root: Path) -> Iterator[None]:
    """Turn the system's "no" about the cache into an error that says what mends it."""
    try:
        yield
    except OSError as error:
        where = Path(os.fsdecode(error.filename)) if error.filename is not None else root
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise NoRoom(
                f"no room in the cache {root}: {error.strerror}",
                mend="free some disk (`pytest-hil image rm NAME`), or put the cache elsewhere: "
                "PYTEST_HIL_CACHE=DIR",
            ) from error
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR) and (
            where.is_relative_to(root) or root.is_relative_to(where)
        ):
            raise ImageError(
                f"the cache {root} cannot be written: {where}: {error.strerror}",
                mend="make it writable, or put the cache elsewhere: PYTEST_HIL_CACHE=DIR",
            ) from error
        raise
