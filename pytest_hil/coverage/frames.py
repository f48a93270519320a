"""Counters of firmware, out of its console's bytes: a decoder without I/O.

The firmware (``target/hil_gcov.c``) writes frames, each a line of its own, between whatever else it
says::

    !HG1:DDDD:SSSSSS:TLL:BASE64:CCCCCCCC

    DDDD    which dump since the firmware began to run: their counters go on
    SSSSSS  the frame's number in the dump, from 0, the same whenever it is sent
    T, LL   its type, and the size of what is in it before BASE64
    CCC…    CRC-32 of the line before it

    B  begin: flags (1: it can receive), which pass of several
    N  a piece of a file's name (its .gcda); the first one begins a file
    D  a piece of its content
    E  end of a file: the number of its first frame, its size, its CRC-32; little-endian
    Z  end of the dump: how many files, flags

All numbers but those of E and Z are hexadecimal. A frame that was damaged or lost is asked for::

    !HR1:DDDD:FFFFFF:TTTTTT:CCCCCCCC        from one to another; NOTHING to 0: that was all

What cannot receive sends all several times. A file counts when each of its frames is there and its
CRC is right: there is no half a file.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from pytest_hil.errors import CoverageError

MAGIC: Final = b"!HG1:"
NOTHING: Final = 0xFFFFFF
# A frame's line has less; a text without an end is not kept.
_MAX_LINE: Final = 200
# All frames of a dump, 48 bytes each. Who sends more is not ours.
_MAX_FRAMES: Final = 2**18
# The same frames are asked for so often.
_TRIES: Final = 5
_FRAME = re.compile(
    rb"!HG1:([0-9a-f]{4}):([0-9a-f]{6}):([BNDEZ])([0-9a-f]{2}):([A-Za-z0-9+/=]*):([0-9a-f]{8})"
)


@dataclass(slots=True)
class Dump:
    """One dump, as far as it has come. ``files``: those that are whole, by their names."""

    number: int
    can_resend: bool = False
    last: int | None = None
    wanted_files: int = 0
    damaged: int = 0
    done: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    _frames: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    _asked: dict[tuple[int, int], int] = field(default_factory=dict)

    def begins_again(self, kind: str, payload: bytes) -> bool:
        """Whether a frame is the first one of another dump with this number: of a new start."""
        return kind == "B" and payload[1:] == b"\0" and 0 in self._frames

    def take(self, number: int, kind: str, payload: bytes) -> None:
        """A frame, whole. Raises ValueError when it says what cannot be."""
        if len(payload) != {"B": 2, "E": 12, "Z": 5}.get(kind, len(payload)):
            raise ValueError(f"a frame {kind} of {len(payload)} bytes")
        if len(self._frames) >= _MAX_FRAMES or number > _MAX_FRAMES:
            raise ValueError("it has too many frames")
        self._frames[number] = (kind, payload)
        if kind == "Z":
            self.last = number
            self.wanted_files, flags = struct.unpack("<IB", payload)
            self.can_resend = bool(flags & 1)

    def ask(self) -> bytes:
        """Its last frame came: what is to be sent now, in answer. Settles it."""
        self.settle()
        gap = self._gap()
        self.done = gap is None
        if not self.can_resend:
            return b""
        if gap is not None and self._asked.get(gap, 0) < _TRIES:
            self._asked[gap] = self._asked.get(gap, 0) + 1
            return request(self.number, *gap)
        return request(self.number, NOTHING, 0)

    def settle(self) -> tuple[int, int] | None:
        """Take out the files that are whole; the frames of the first one that is not."""
        bad = None
        for end, (kind, payload) in sorted(self._frames.items()):
            if kind != "E":
                continue
            first, size, crc = struct.unpack("<III", payload)
            parts = [self._frames.get(number) for number in range(min(first, end), end)]
            name = b"".join(part[1] for part in parts if part and part[0] == "N")
            content = b"".join(part[1] for part in parts if part and part[0] == "D")
            if len(content) == size and zlib.crc32(content) == crc and None not in parts:
                self.files[name.decode(errors="surrogateescape")] = content
            elif bad is None and first < end:
                bad = (first, end)
        return bad

    def _gap(self) -> tuple[int, int] | None:
        """The first frames that are missing, from and to; None when none is, as far as is known."""
        end = max(self._frames) if self.last is None else self.last
        first = next((n for n in range(end + 1) if n not in self._frames), None)
        if first is None:
            # All are there: a file that is not whole has frames of different moments.
            return None if self.complete else self.settle()
        after = next(n for n in range(first, end + 2) if n in self._frames or n > end)
        return first, after - 1

    @property
    def complete(self) -> bool:
        return self.last is not None and len(self.files) == self.wanted_files

    def trouble(self) -> str:
        """What is wrong with it; "" if it is complete."""
        if self.complete:
            return ""
        had = f"{len(self._frames)} frames came whole"
        if self.damaged:
            had += f", {self.damaged} came damaged"
        if self.last is None:
            what = f"it ended in the middle ({had}; its end did not come)"
        elif self._gap() is None:
            what = f"it says that it has {self.wanted_files} files ({had})"
        else:
            first, to = self._gap() or (0, 0)
            what = f"frames {first} to {to} of {self.last + 1} are missing or do not fit ({had})"
        return f"{what}; the {len(self.files)} files of it that are whole were counted"


def request(dump: int, first: int, to: int) -> bytes:
    """The line that asks for frames of a dump."""
    line = b"!HR1:%04x:%06x:%06x:" % (dump, first, to)
    return line + b"%08x\n" % zlib.crc32(line)


class Decoder:
    """Bytes of a console in, files and answers out.

    ``boots`` has, for each start of the firmware, the newest whole content of each file: a later
    dump's counters include those of an earlier one.
    """

    def __init__(self) -> None:
        self.boots: list[dict[str, bytes]] = [{}]
        self.problems: list[CoverageError] = []
        self._dump: Dump | None = None
        # The last one that was finished: more of it may come, and is not counted.
        self._over = -1
        self._line = b""

    @property
    def waiting(self) -> bool:
        """Whether a dump has begun that is not complete yet."""
        return self._dump is not None and not self._dump.done

    def feed(self, data: bytes) -> bytes:
        """Take bytes; returns what is to be sent."""
        out = b""
        *lines, rest = (self._line + data).replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            if MAGIC in line:
                out += self._take(line)
        # The beginning of a frame is in its last bytes, or nowhere.
        self._line = rest[-_MAX_LINE:]
        return out

    def restarted(self) -> None:
        """The firmware begins anew: what it counts from now on is added."""
        self.finish()
        self._over = -1
        if self.boots[-1]:
            self.boots.append({})

    def finish(self) -> None:
        """No more of this dump will come: take what is whole, say what is not."""
        dump, self._dump, self._line = self._dump, None, b""
        if dump is None:
            return
        self._over = dump.number
        dump.settle()
        self.boots[-1].update(dump.files)
        if trouble := dump.trouble():
            self.problems.append(
                CoverageError(f"counters over the console, dump {dump.number}: {trouble}")
            )

    def _take(self, line: bytes) -> bytes:
        # The last one: the first may have been cut off by it.
        line = line[line.rindex(MAGIC) :]
        found = _FRAME.match(line)
        # An interrupt's text in it, or a byte lost: it is asked for again, or in the next pass.
        if found is None or int(found[6], 16) != zlib.crc32(found[0][:-8]):
            return self._damaged()
        try:
            payload = base64.b64decode(found[5], validate=True)
        except binascii.Error:
            return self._damaged()
        number, sequence, kind = int(found[1], 16), int(found[2], 16), found[3].decode()
        dump = self._of(number, kind, payload)
        if dump is None:
            return b""
        try:
            if len(payload) != int(found[4], 16):
                raise ValueError("a frame of another size than it says")
            dump.take(sequence, kind, payload)
        except ValueError:
            return self._damaged()
        return dump.ask() if kind == "Z" else b""

    def _damaged(self) -> bytes:
        if self._dump is not None:
            self._dump.damaged += 1
        return b""

    def _of(self, number: int, kind: str, payload: bytes) -> Dump | None:
        """The dump that a frame is of, a new one if it begins; None: one that is over."""
        dump = self._dump
        if dump is None:
            if number <= self._over:
                if number == self._over and not (kind == "B" and payload[1:] == b"\0"):
                    return None
                self.restarted()
        elif dump.number == number and not dump.begins_again(kind, payload):
            return dump
        elif number > dump.number:
            self.finish()
        else:
            self.restarted()
        self._dump = Dump(number)
        return self._dump
