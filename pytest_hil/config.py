"""boards.toml → frozen dataclasses."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MiB = 2**20


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file of the host that goes into an image. ``mode`` None: as it is on the host."""

    source: Path
    path: str
    mode: int | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A file by URL. At least ``sha256`` is required; ``sha512`` is checked too when given."""

    url: str
    sha256: str
    sha512: str = ""


@dataclass(frozen=True, slots=True)
class DebianImage:
    """Our own initramfs: Debian's kernel (or the user's), busybox, usbip, the agent, and additions."""

    name: str
    arch: str | None = None
    packages: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    files: tuple[GuestFile, ...] = ()
    startup: tuple[str, ...] = ()
    kernel: Path | None = None
    kernel_modules: Path | None = None
    append: str = ""


@dataclass(frozen=True, slots=True)
class FilesImage:
    """Files that the user has. ``agent``: whether the guest runs our agent."""

    name: str
    kernel: Path | None = None
    initrd: Path | None = None
    disk: Path | None = None
    append: str = ""
    arch: str | None = None
    agent: bool = False


@dataclass(frozen=True, slots=True)
class UrlImage:
    """Files that are fetched and checked."""

    name: str
    kernel: Download | None = None
    initrd: Download | None = None
    disk: Download | None = None
    append: str = ""
    arch: str | None = None
    agent: bool = False


ImageSpec = DebianImage | FilesImage | UrlImage


@dataclass(frozen=True, slots=True)
class Forward:
    """A port of the guest made reachable on a port of the host's loopback that the kernel picks."""

    guest_port: int
    protocol: Literal["tcp", "udp"] = "tcp"


@dataclass(frozen=True, slots=True)
class QemuTarget:
    """``[target.NAME]`` with ``backend = "qemu"``.

    ``memory`` in bytes. ``machine``/``cpu`` "": the architecture's default. ``ready``: for machines
    without an agent, a regular expression on the console that means "booted" ("": at once).
    """

    name: str
    arch: str
    machine: str = ""
    cpu: str = ""
    smp: int = 1
    memory: int = 256 * MiB
    image: str = "debian"
    kernel: Path | None = None
    kernel_modules: Path | None = None
    initrd: Path | None = None
    disk: Path | None = None
    append: str = ""
    agent: bool = True
    ready: str = ""
    network: Literal["isolated", "open", "none"] = "isolated"
    forwards: tuple[Forward, ...] = ()
    features: frozenset[str] = frozenset()
    extra_args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Config:
    """All of boards.toml. ``path`` None: there is none, the built-in ``qemu`` target alone."""

    path: Path | None
    targets: dict[str, QemuTarget] = field(default_factory=dict)
    images: dict[str, ImageSpec] = field(default_factory=dict)
