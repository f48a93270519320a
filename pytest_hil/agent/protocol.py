"""What host and agent say to each other: bytes in, events out. No socket, no thread, no clock.

**Frames.** All numbers are little-endian. A frame is a header of 20 bytes and its payload::

    4s  magic     1b 48 49 4c
    B   type      see FrameType
    B   flags     depend on the type
    H   check     low half of the CRC-32 of the header with these two bytes 0
    I   operation which one it belongs to; 0 for none
    I   length    of the payload, at most 65536
    I   crc       CRC-32 of the payload; 0 for DATA, whose files carry their own

Whoever finds something that is not a good header skips to the next magic: a damaged
stream costs the frames that were damaged. Strings in payloads are UTF-8 (any bytes in
paths: surrogateescape) and end with a NUL.

**Sessions.** An agent may have been frozen in a machine's snapshot and go on under
another host, so either side may begin in the middle of a frame. HELLO carries 16
random bytes; the host discards what comes until HELLO_OK repeats them. For the agent
a new HELLO ends the session before: its commands' process groups are killed, its half-made files
removed. HELLO with the same bytes again is only answered again. The agent says
READY when it starts: whoever hears that within a session knows that the agent was
restarted and all operations are lost. If the agent was frozen inside a frame, the
rest of that frame swallows HELLO: :func:`hello` can put padding before it.

**Operations.** The host names them with a number of its own. Each request is answered by
one or more frames, the last of which is EXIT, DONE or ERROR; then the number is free
again. Frames for an operation that has ended are ignored.

- EXEC starts a process in a session and process group of its own. DATA from the host is its stdin
  (flag 0x80: the last of it), DATA from the agent its stdout or stderr. The agent
  sends no more output than it has credit for (EXEC's and CREDIT's); the host sends no more
  stdin than 64 KiB beyond what the agent has given CREDIT for (flag 1: nobody reads it any more).
  EXIT follows when the process has ended and all that was in its pipes at that moment has been
  sent: children in the background that keep the pipes open are not waited for, nor killed.
- PUT is followed by ENTRY for the root (name "") and, if it is a directory, for all that is
  in it; each file's ENTRY by its DATA and FILE_END. COMMIT publishes it, DONE tells the
  number of bytes and the CRC-32 of the files' CRC-32s in order (as bytes, little-endian).
- GET is answered by the same frames from the agent, as far as credit goes; an ENTRY costs 512.
- PERSONALISE, SYNC and POWER are answered by DONE. CANCEL ends any operation.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pytest_hil.agent.frames import HEADER_SIZE, MAX_PAYLOAD, Frame, FrameType, pack
from pytest_hil.errors import ProtocolError

VERSION = 1
INPUT_WINDOW = 65536
MAX_STRINGS = 8192
ENTRY_COST = 512
NONCE_SIZE = 16
MIN_ENTROPY = 32
MAX_ENTROPY = 512
PORT_NAME = "org.pytest-hil.agent"

STDIN, STDOUT, STDERR, END_OF_DATA = 0, 1, 2, 0x80
_WITH_STDIN, _PLAIN_LINE = 1, 2
_BY_SIGNAL, _TIMED_OUT = 1, 2
_INPUT_CLOSED = 1
NO_OWNER = 0xFFFFFFFF
NO_MTIME = -(2**63)


# --- what is in the payloads: pack and parse side by side ---


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError(f"a NUL in {text!r} cannot be passed on")
    return raw + b"\0"


def _strings(payload: bytes, count: int) -> list[str]:
    parts = payload.split(b"\0")
    if len(parts) != count + 1 or parts[-1]:
        raise ValueError(f"{count} strings were expected")
    return [part.decode("utf-8", "surrogateescape") for part in parts[:-1]]


@dataclass(frozen=True, slots=True)
class HelloOk:
    """The agent's answer to HELLO. ``build``: the hash of the sources that it was built from."""

    nonce: bytes
    version: int
    build: str
    arch: str

    def pack(self) -> bytes:
        body = struct.pack("<H", self.version) + _string(self.build) + _string(self.arch)
        return pack(FrameType.HELLO_OK, 0, self.nonce + body)


@dataclass(frozen=True, slots=True)
class Ready:
    """An agent has just started."""

    version: int
    build: str
    arch: str


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes of a file (stream 0), of stdout (1) or of stderr (2)."""

    operation: int
    stream: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Credit:
    """So many bytes of stdin have been taken; ``closed``: no more will be."""

    operation: int
    size: int
    closed: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """A file ("f"), directory ("d") or symlink ("l"). ``mtime``: ns since the epoch."""

    operation: int
    kind: str
    name: str
    mode: int
    uid: int = NO_OWNER
    gid: int = NO_OWNER
    mtime: int = NO_MTIME
    size: int = 0
    target: str = ""

    _FIXED = struct.Struct("<cIIIqQ")

    def pack(self) -> bytes:
        fixed = self._FIXED.pack(
            self.kind.encode(), self.mode, self.uid, self.gid, self.mtime, self.size
        )
        return pack(
            FrameType.ENTRY, self.operation, fixed + _string(self.name) + _string(self.target)
        )

    @classmethod
    def parse(cls, frame: Frame) -> Entry:
        kind, mode, uid, gid, mtime, size = cls._FIXED.unpack_from(frame.payload)
        name, target = _strings(frame.payload[cls._FIXED.size :], 2)
        return cls(frame.operation, kind.decode(), name, mode, uid, gid, mtime, size, target)


@dataclass(frozen=True, slots=True)
class FileEnd:
    """The open file has ended."""

    operation: int
    size: int
    crc: int

    def pack(self) -> bytes:
        return pack(FrameType.FILE_END, self.operation, struct.pack("<QI", self.size, self.crc))


@dataclass(frozen=True, slots=True)
class Done:
    """An operation succeeded. ``size`` and ``digest`` are a transfer's."""

    operation: int
    size: int = 0
    digest: int = 0


@dataclass(frozen=True, slots=True)
class Exit:
    """A command ended. ``code`` is negative for a signal."""

    operation: int
    code: int
    timed_out: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """An operation failed; ``error`` is an errno."""

    operation: int
    error: int
    text: str


Event = HelloOk | Ready | Data | Credit | Entry | FileEnd | Done | Exit | Failed


def parse(frame: Frame) -> Event:
    """What a frame from the agent means. Raises ProtocolError for one that means nothing."""
    type_, flags, operation, payload = frame
    try:
        match type_:
            case FrameType.DATA:
                return Data(operation, flags, payload)
            case FrameType.EXIT:
                (code,) = struct.unpack("<i", payload)
                code = -code if flags & _BY_SIGNAL else code
                return Exit(operation, code, bool(flags & _TIMED_OUT))
            case FrameType.CREDIT:
                (size,) = struct.unpack("<I", payload)
                return Credit(operation, size, bool(flags & _INPUT_CLOSED))
            case FrameType.ENTRY:
                return Entry.parse(frame)
            case FrameType.FILE_END:
                return FileEnd(operation, *struct.unpack("<QI", payload))
            case FrameType.DONE:
                return Done(operation, *(struct.unpack("<QI", payload) if payload else ()))
            case FrameType.ERROR:
                (error,) = struct.unpack_from("<I", payload)
                return Failed(operation, error, payload[4:].decode(errors="replace"))
            case FrameType.HELLO_OK:
                nonce, rest = payload[:NONCE_SIZE], payload[NONCE_SIZE:]
                return HelloOk(nonce, *_greeting(rest))
            case FrameType.READY:
                return Ready(*_greeting(payload))
    except (struct.error, ValueError) as wrong:
        raise ProtocolError(f"the agent sent a malformed frame of type {type_}: {wrong}") from None
    raise ProtocolError(f"the agent sent a frame of type {type_}, which it never does")


def _greeting(payload: bytes) -> tuple[int, str, str]:
    (version,) = struct.unpack_from("<H", payload)
    build, arch = _strings(payload[2:], 2)
    return version, build, arch


def hello(nonce: bytes, *, padding: bool = False) -> bytes:
    """HELLO; ``padding`` leads an agent out of a frame that it is inside of, however long."""
    frame = pack(FrameType.HELLO, 0, nonce + struct.pack("<H", VERSION))
    return bytes(HEADER_SIZE + MAX_PAYLOAD) + frame if padding else frame


def execute(
    operation: int,
    argv: Sequence[str],
    *,
    timeout_ms: int = 0,
    credit: int,
    stdin: bool = False,
    plain_line: bool = False,
    env: Mapping[str, str] | None = None,
    cwd: str = "",
) -> bytes:
    """EXEC. ``plain_line``: the words of a shell line, for ``sh -c`` if need be.

    Raises ValueError when it does not fit in one frame.
    """
    additions = [f"{name}={value}" for name, value in (env or {}).items()]
    if not argv or len(argv) + len(additions) > MAX_STRINGS:
        raise ValueError(f"a command has 1 to {MAX_STRINGS} arguments and environment variables")
    payload = struct.pack("<IIHH", timeout_ms, credit, len(argv), len(additions)) + b"".join(
        map(_string, (cwd, *argv, *additions))
    )
    if len(payload) > MAX_PAYLOAD:
        raise ValueError(
            f"the command and its environment have {len(payload)} bytes, more than {MAX_PAYLOAD}: "
            "put() a script, or give the rest as input="
        )
    flags = (_WITH_STDIN if stdin else 0) | (_PLAIN_LINE if plain_line else 0)
    return pack(FrameType.EXEC, operation, payload, flags)


def data(operation: int, payload: bytes, *, end: bool = False) -> bytes:
    return pack(FrameType.DATA, operation, payload, END_OF_DATA if end else 0)


def credit(operation: int, size: int) -> bytes:
    return pack(FrameType.CREDIT, operation, struct.pack("<I", size))


def cancel(operation: int) -> bytes:
    return pack(FrameType.CANCEL, operation)


def put(operation: int, path: str) -> bytes:
    return pack(FrameType.PUT, operation, _string(path))


def commit(operation: int) -> bytes:
    return pack(FrameType.COMMIT, operation)


def get(operation: int, path: str, *, credit: int) -> bytes:
    return pack(FrameType.GET, operation, struct.pack("<I", credit) + _string(path))


def personalise(
    operation: int,
    *,
    entropy: bytes | None = None,
    time_ns: int | None = None,
    hostname: str | None = None,
    machine_id: str | None = None,
) -> bytes:
    """PERSONALISE: what is None is left as it is. ``entropy``: 32 to 512 bytes."""
    if entropy is not None and not MIN_ENTROPY <= len(entropy) <= MAX_ENTROPY:
        raise ValueError(f"entropy has {MIN_ENTROPY} to {MAX_ENTROPY} bytes, not {len(entropy)}")
    given = (entropy, time_ns, hostname, machine_id)
    what = sum(1 << bit for bit, value in enumerate(given) if value is not None)
    entropy = entropy or b""
    payload = struct.pack("<BqH", what, time_ns or 0, len(entropy)) + entropy
    payload += _string(hostname or "") + _string(machine_id or "")
    return pack(FrameType.PERSONALISE, operation, payload)


def sync(operation: int) -> bytes:
    return pack(FrameType.SYNC, operation)


def power(operation: int, *, reboot: bool) -> bytes:
    return pack(FrameType.POWER, operation, bytes([reboot]))
