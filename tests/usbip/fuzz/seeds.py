"""Conversations that the fuzzer begins with, and words that it puts in."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from pytest_hil.usbip.messages import (
    RepDevlist,
    RepImport,
    ReqDevlist,
    ReqImport,
    RetSubmit,
    RetUnlink,
    Submit,
    Unlink,
)
from tests.usbip.fuzz import targets
from tests.usbip.fuzz.targets import DEVICE, IN, OUT, STUFFED, STUFFING, in_flight

ATTACHED = bytes([targets.ATTACHED, 0])
STUFFED_URB = bytes([targets.ATTACHED | STUFFED, 0])
FROM_THE_BEGINNING = bytes(2)


def _control(seqnum: int, devid: int, setup: str, data: bytes = b"") -> bytes:
    """A control transfer; ``setup`` in hexadecimal, little-endian as on the bus."""
    raw = bytes.fromhex(setup)
    (length,) = struct.unpack_from("<H", raw, 6)
    way = IN if raw[0] & 0x80 else OUT
    return Submit(seqnum, devid, way, 0, length, setup=raw, data=data).pack()


def _enumeration(devid: int) -> bytes:
    """What every host does first: descriptors, then the configuration."""
    return b"".join(
        (
            _control(1, devid, "8006000100001200"),
            _control(2, devid, "8006000200000001"),
            _control(3, devid, "8006020309040001"),
            _control(4, devid, "0009010000000000"),
        )
    )


def requests() -> list[bytes]:
    """For the exporter, after the two bytes that say where it begins."""
    mine = DEVICE.devid
    urbs = b"".join(each.pack() for each in in_flight())
    interface = _control(5, mine, "010b010000000000")
    stick = (
        b"USBC" + struct.pack("<IIBBB", 7, 36, 0x80, 0, 6) + b"\x12\0\0\0\x24\0".ljust(16, b"\0")
    )
    return [
        FROM_THE_BEGINNING + ReqDevlist().pack(),
        FROM_THE_BEGINNING + ReqDevlist().pack() + ReqImport("9-9").pack(),
        FROM_THE_BEGINNING + ReqImport("1-1").pack() + _enumeration(mine),
        FROM_THE_BEGINNING + ReqImport("1-2").pack() + _enumeration(mine + 1),
        FROM_THE_BEGINNING + ReqImport("1-3").pack() + _enumeration(mine + 2),
        FROM_THE_BEGINNING
        + ReqImport("1-4").pack()
        + _enumeration(mine + 3)
        + Submit(5, mine + 3, OUT, 2, len(stick), data=stick).pack()
        + Submit(6, mine + 3, IN, 1, 36).pack()
        + Submit(7, mine + 3, IN, 1, 13).pack(),
        ATTACHED + urbs,
        ATTACHED + _enumeration(mine) + interface + urbs.replace(b"\0\0\0\x05", b"\0\0\0\x15"),
        STUFFED_URB + Submit(1, mine, OUT, 1, STUFFING).pack() + Unlink(2, mine, 1).pack(),
        ATTACHED + Submit(1, mine, IN, 15, 64, packets=-1).pack() + Unlink(2, mine, 1).pack(),
    ]


def replies() -> list[bytes]:
    """For the importer; the first byte says what it waits for."""
    waits = [bytes([where, 0]) for where in range(4)]
    iso = next(each.iso for each in in_flight() if isinstance(each, Submit) and each.iso)
    ended: list[RetSubmit | RetUnlink] = [
        RetSubmit(1, 0, 64, bytes(64)),
        RetUnlink(6, 0),
        RetSubmit(2, -32, 0),
        RetUnlink(9, -104),
        RetSubmit(3, 0, 0, packets=len(iso), iso=iso),
    ]
    # Attached, and a long payload.
    long = bytes([3 | STUFFED, 0]) + RetSubmit(5, -121, STUFFING).pack() + RetUnlink(6).pack()
    return [
        waits[0] + b"\0",
        waits[1] + RepDevlist((DEVICE, DEVICE)).pack(),
        waits[1] + RepDevlist((), 1).pack(),
        waits[2] + RepImport(DEVICE).pack(),
        waits[2] + RepImport(None, 4).pack(),
        long,
        waits[3] + b"".join(each.pack() for each in ended),
        *(waits[3] + each.pack() for each in ended),
    ]


SEEDS = {"exporter-parser": requests, "importer-parser": replies, "live-exporter": requests}


def words() -> Sequence[bytes]:
    """For libFuzzer's dictionary: what is at the beginning of messages, and numbers that matter."""
    numbers = (0, 1, 2, 3, 4, 15, 16, 64, 1024, 1025, 2**16, 2**24 + 1, 2**31 - 1, 2**31, 2**32 - 1)
    return [
        ReqDevlist().pack(),
        ReqImport("1-1").pack(),
        b"\x01\x11",
        *(struct.pack(">I", number) for number in numbers),
        struct.pack(">I", DEVICE.devid),
    ]
