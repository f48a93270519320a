"""The serial ports of this host: which there are, which is meant, and who has one open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.errors import ChannelLost, InfrastructureError, nearest, visible

# "loc:1-1.4", or with the interface of an adapter that has several ports: "loc:1-1.4:1.2".
LOCATION = re.compile(r"loc:([0-9]+-[0-9]+(?:\.[0-9]+)*(?::[0-9]+\.[0-9]+)?)", re.ASCII)
USB = re.compile(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?::(.+))?", re.ASCII | re.IGNORECASE)

_BY_ID = Path("/dev/serial/by-id")
_LONGEST_COMMAND = 200


@dataclass(frozen=True, slots=True)
class Port:
    """One port. ``link`` is its name that stays the same; the USB facts are of USB adapters."""

    device: str
    link: str = ""
    location: str = ""
    vid: int | None = None
    pid: int | None = None
    serial: str = ""
    what: str = ""

    def __str__(self) -> str:
        also = []
        if self.link:
            also.append(self.link)
        if self.location:
            also.append(f"loc:{self.location}")
        if self.vid is not None and self.pid is not None:
            also.append(
                f"usb:{self.vid:04x}:{self.pid:04x}" + f":{self.serial}" * bool(self.serial)
            )
        if self.what:
            also.append(self.what)
        # An adapter's own words, on somebody's terminal.
        return visible(self.device + (f" ({', '.join(also)})" if also else ""))


def ports() -> list[Port]:
    """What serial.tools.list_ports finds, with the names that udev gave."""
    from serial.tools import list_ports  # type: ignore[import-untyped,unused-ignore]

    links = by_id()
    return sorted(
        (
            Port(
                one.device,
                links.get(os.path.realpath(one.device), ""),
                one.location or "",
                one.vid,
                one.pid,
                one.serial_number or "",
                "" if one.description in (None, "n/a") else one.description,
            )
            for one in list_ports.comports()
        ),
        key=lambda port: port.device,
    )


def by_id(directory: Path = _BY_ID) -> dict[str, str]:
    """Device → its name by id."""
    try:
        return {os.path.realpath(link): str(link) for link in sorted(directory.iterdir())}
    except OSError:
        return {}


def find(wanted: str, there: Iterable[Port] | None = None) -> str:
    """The device that is meant: a path as it is, or the one port at a location or of an adapter.

    Raises ChannelLost when there is none, InfrastructureError when there are several.
    """
    if not wanted.startswith(("loc:", "usb:")):
        return wanted
    there = ports() if there is None else list(there)
    found = [port for port in there if _is_meant(port, wanted)]
    if not found:
        raise missing(wanted, there)
    if len(found) > 1:
        raise InfrastructureError(
            f"{wanted} is {len(found)} serial ports:" + _listed(found),
            mend="name one: by its /dev/serial/by-id/…, or loc:… with its interface",
        )
    return found[0].device


def missing(wanted: str, there: Iterable[Port] | None = None) -> ChannelLost:
    """The error: there is no such port; with those that are there."""
    there = ports() if there is None else list(there)
    if not there:
        return ChannelLost(
            f"there is no serial port {wanted}, and none at all on this host",
            mend="is the adapter plugged in? `dmesg` says what the kernel made of it",
        )
    names = [name for port in there for name in (port.device, port.link) if name]
    names += [f"loc:{port.location}" for port in there if port.location]
    near = nearest(wanted, names)
    return ChannelLost(
        f"there is no serial port {wanted}; there are:" + _listed(there),
        mend=near if near.startswith("did you mean") else "is the adapter plugged in?",
    )


def _is_meant(port: Port, wanted: str) -> bool:
    if match := LOCATION.fullmatch(wanted):
        return port.location == match[1] or port.location.startswith(f"{match[1]}:")
    if match := USB.fullmatch(wanted):
        return (
            port.vid == int(match[1], 16)
            and port.pid == int(match[2], 16)
            and (match[3] is None or port.serial == match[3])
        )
    return False


def _listed(there: Iterable[Port]) -> str:
    return "".join(f"\n    {port}" for port in there)


# --- who has it ---


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a port open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f"process {self.pid} ({visible(self.command)})"


def holders(device: str) -> list[Holder]:
    """Who else has a file open, of those whose descriptors this user may see."""
    real = os.path.realpath(device)
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid() and _has_open(entry, real):
            found.append(Holder(int(entry.name), _command(entry)))
    return sorted(found, key=lambda holder: holder.pid)


def _has_open(entry: Path, real: str) -> bool:
    try:
        # By its name, not by stat(2): that may hang on a file of a dead server.
        with os.scandir(entry / "fd") as fds:
            return any(_target(fd) == real for fd in fds)
    except OSError:
        return False  # it has ended, or is somebody else's


def _target(fd: os.DirEntry[str]) -> str:
    try:
        return os.readlink(fd.path)  # noqa: PTH115
    except OSError:
        return ""


def _command(entry: Path) -> str:
    try:
        words = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "?"
    text = " ".join(word.decode(errors="replace") for word in words)
    return text if len(text) <= _LONGEST_COMMAND else f"{text[:_LONGEST_COMMAND]}…"
