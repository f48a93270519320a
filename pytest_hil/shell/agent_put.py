"""Files and trees to the target: checked at both ends, published by rename."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from zlib import crc32

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import MAX_PAYLOAD
from pytest_hil.agent.protocol import Done, Entry, Event, Failed, FileEnd
from pytest_hil.errors import OutcomeUnknown, ProtocolError, TransferError
from pytest_hil.shell.agent_channel import Channel, Operation
from pytest_hil.shell.agent_transfer import STALL, Refused
from pytest_hil.shell.patient_writer import Late


def put(
    channel: Channel,
    local: str | os.PathLike[str],
    remote: str,
    *,
    mode: int | None = None,
    owner: tuple[int, int] | None = None,
) -> None:
    """Copy a file or a directory to the target.

    ``remote`` is the name that it gets; one that ends with ``/`` is the directory that it gets
    into. The directory above must exist. A file replaces a file. A directory goes into one that
    exists: files of the same name are replaced, others stay. Symlinks in a directory stay
    symlinks, at the top they are followed. Modes (of the top: ``mode``) and times are kept;
    all belongs to ``owner``, or to root.

    Raises TransferError, saying which file and why.
    """
    source = Path(local)
    if remote.endswith("/"):
        remote += Path(os.path.abspath(source)).name  # noqa: PTH100 (symlinks are kept)
    what = f"put {source} to {channel.name}:{remote}"
    with channel.operation(what) as operation:
        sender = _Sender(operation)
        try:
            sender.send(protocol.put(operation.number, remote))
            for entry, path in _walk(source, operation.number, mode, owner):
                sender.send(entry.pack())
                if entry.kind == "f":
                    sender.send_file(path)
            sender.commit()
        except Refused as refused:
            raise TransferError(f"{what}: {refused.text}") from None
        except Late:
            raise TransferError(f"{what}: the target took nothing for {STALL:g} s") from None
        except (OSError, ValueError) as error:
            raise TransferError(f"{what}: {error}") from error


class _Sender:
    """Collects small frames into large writes."""

    def __init__(self, operation: Operation) -> None:
        self._operation = operation
        self._frames: list[bytes] = []
        self._size = 0
        self._digest = 0
        self._total = 0

    def send(self, frame: bytes) -> None:
        self._frames.append(frame)
        self._size += len(frame)
        if self._size >= MAX_PAYLOAD:
            self._flush()
            if not self._operation.events.empty():
                self._answer()  # before its end: it can only be a refusal

    def _flush(self) -> None:
        frames, self._frames, self._size = b"".join(self._frames), [], 0
        self._operation.send(frames, time.monotonic() + STALL)

    def send_file(self, path: Path) -> None:
        crc = size = 0
        number = self._operation.number
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(MAX_PAYLOAD):
                crc = crc32(chunk, crc)
                size += len(chunk)
                self.send(protocol.data(number, chunk))
        self.send(FileEnd(number, size, crc).pack())
        self._digest = crc32(crc.to_bytes(4, "little"), self._digest)
        self._total += size

    def _answer(self) -> Event:
        event = self._operation.next(time.monotonic() + STALL)
        if isinstance(event, Failed):
            raise Refused(event.text)
        return event

    def commit(self) -> None:
        """Have it published, and hear that it is there, whole."""
        what = self._operation.what
        try:
            self._frames.append(protocol.commit(self._operation.number))
            self._flush()
            done = self._answer()
        except Late:
            raise OutcomeUnknown(
                f"{what}: all was sent, and the target says nothing for {STALL:g} s"
            ) from None
        if done != Done(self._operation.number, self._total, self._digest):
            raise ProtocolError(
                f"{what}: sent {self._total} bytes with digest {self._digest:08x}, "
                f"but the target answers {done}"
            )


def _walk(
    root: Path, number: int, mode: int | None, owner: tuple[int, int] | None
) -> Iterator[tuple[Entry, Path]]:
    """Every entry below, parents first; directories again at their end, for their final looks."""
    uid, gid = owner or (protocol.NO_OWNER, protocol.NO_OWNER)

    def entry(path: Path, kind: str, st: os.stat_result, *, target: str = "") -> Entry:
        name = "" if path == root else path.relative_to(root).as_posix()
        bits = mode if mode is not None and path == root else stat.S_IMODE(st.st_mode)
        return Entry(number, kind, name, bits, uid, gid, st.st_mtime_ns, st.st_size, target=target)

    def below(path: Path, st: os.stat_result) -> Iterator[tuple[Entry, Path]]:
        if stat.S_ISREG(st.st_mode):
            yield entry(path, "f", st), path
        elif stat.S_ISLNK(st.st_mode):
            yield entry(path, "l", st, target=str(path.readlink())), path
        elif stat.S_ISDIR(st.st_mode):
            yield entry(path, "d", st), path
            for child in sorted(path.iterdir()):
                yield from below(child, child.lstat())
            yield entry(path, "d", st), path
        else:
            raise OSError(f"{path} is no file, directory or symlink")

    return below(root, root.stat())
