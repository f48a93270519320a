"""What is in a usb.pcap, summed up: which endpoints, how much, how it ended."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

# As pytest_hil.usbip.pcap writes it: pcap in this host's byte order, link type 220.
_FILE: Final = struct.Struct("=IHHiIII")
_RECORD: Final = struct.Struct("=IIII")
_PACKET: Final = struct.Struct("=QBBBBH2xqiiI")
_MAGIC: Final = 0xA1B2C3D4
_LINK_TYPE: Final = 220
_TYPES: Final = ("isochronous", "interrupt", "control", "bulk")

MOST_RECORDS: Final = 20_000
_PIECE: Final = 2**20


@dataclass(slots=True)
class Endpoint:
    """Transfers of one endpoint of a device that have ended; ``size``: bytes that went through."""

    device: str
    address: int
    type: str
    transfers: int = 0
    size: int = 0
    errors: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class Summary:
    """``whole`` false: there is more in the file than was read."""

    size: int
    endpoints: list[Endpoint]
    seconds: float = 0.0
    whole: bool = True


def summary(path: Path, *, most: int = MOST_RECORDS) -> Summary | None:
    """Of the first ``most`` records. None if there is no such file, or it is none of ours."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(_FILE.size)
            if len(head) < _FILE.size:
                return None
            magic, *_, link = _FILE.unpack(head)
            if magic != _MAGIC or link != _LINK_TYPE:
                return None
            found: dict[tuple[int, int, int, int], Endpoint] = {}
            first = last = 0.0
            for _ in range(most):
                head = file.read(_RECORD.size + _PACKET.size)
                if len(head) < _RECORD.size + _PACKET.size:
                    break  # the end, or where its writer was killed
                seconds, micros, kept, _whole = _RECORD.unpack_from(head)
                last = seconds + micros / 1e6
                first = first or last
                if kept < _PACKET.size or kept > size:
                    break
                _count(head, found)
                file.seek(kept - _PACKET.size, 1)
            whole = file.tell() >= size or len(head) < _RECORD.size + _PACKET.size
    except OSError:
        return None
    endpoints = sorted(found.values(), key=lambda one: (one.device, one.address))
    return Summary(size, endpoints, round(last - first, 6), whole)


def _count(head: bytes, found: dict[tuple[int, int, int, int], Endpoint]) -> None:
    _number, event, kind, address, device, bus, _time, _micros, status, length = (
        _PACKET.unpack_from(head, _RECORD.size)
    )
    if event != ord("C"):
        return
    key = (bus, device, address, kind)
    endpoint = found.get(key)
    if endpoint is None:
        name = _TYPES[kind] if kind < len(_TYPES) else "?"
        endpoint = found[key] = Endpoint(f"{bus}-{device}", address, name)
    endpoint.transfers += 1
    endpoint.size += length
    if status:
        endpoint.errors[status] = endpoint.errors.get(status, 0) + 1
