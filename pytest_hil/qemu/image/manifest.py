"""What an image is, and the file beside it that says so."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pytest_hil.cache import MANIFEST

KIND = "image"
"""Built images' place in the cache."""

FORMAT = 1
"""Changes when an image of an older pytest-hil must not be used any more."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Image:
    """What a machine boots.

    ``key`` is a hash that changes when any byte of what boots changes. ``kernel`` None: the disk
    boots by itself. ``agent``: whether the guest runs our agent. Paths are absolute; ``disks``
    are never written (machines write to overlays). ``config`` is the kernel's .config, if known.
    """

    key: str
    name: str
    arch: str
    kernel: Path | None
    initrd: Path | None
    append: str
    disks: tuple[Path, ...] = ()
    agent: bool = True
    config: Path | None = None


@dataclass(frozen=True, slots=True)
class Sum:
    """A file's size in bytes and its sha256 (hex)."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """``manifest.json`` of an image in the cache.

    ``unpacked`` is the memory that its files take in the guest, in bytes; ``built`` is in
    seconds since the epoch; ``modules`` load at boot, in this order.
    """

    name: str
    key: str
    arch: str
    kernel: str
    initrd: str
    append: str
    agent: bool
    built: float
    unpacked: int
    kernel_version: str = ""
    files: Mapping[str, Sum] = field(default_factory=dict)
    packages: Mapping[str, str] = field(default_factory=dict)
    modules: tuple[str, ...] = ()
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, sort_keys=True)
        (folder / MANIFEST).write_text(text + "\n")

    @classmethod
    def read(cls, folder: Path) -> Manifest | None:
        """None when there is none, or it is of another format, or damaged."""
        try:
            fields: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
            if fields.get("format") != FORMAT:
                return None
            fields["files"] = {name: Sum(**value) for name, value in fields["files"].items()}
            fields["modules"] = tuple(fields["modules"])
            return cls(**fields)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def image(self, folder: Path) -> Image:
        return Image(
            key=self.key,
            name=self.name,
            arch=self.arch,
            kernel=folder / self.kernel,
            initrd=folder / self.initrd,
            append=self.append,
            agent=self.agent,
            config=folder / "config" if "config" in self.files else None,
        )

    def same_sizes(self, folder: Path) -> bool:
        """Whether its files are there with their sizes: what a look without reading them says."""
        try:
            return all((folder / n).stat().st_size == s.size for n, s in self.files.items())
        except FileNotFoundError:
            return False

    def damage(self, folder: Path) -> list[str]:
        """What is wrong with its files, one sentence each; reads them all."""
        found = []
        for name, wanted in self.files.items():
            try:
                got = sum_of(folder / name)
            except FileNotFoundError:
                found.append(f"{name} is missing")
                continue
            if got != wanted:
                found.append(f"{name} has sha256 {got.sha256}, was built with {wanted.sha256}")
        return found


def sum_of(path: Path) -> Sum:
    """A file's size and sha256."""
    total = hashlib.sha256()
    size = 0
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
            size += len(chunk)
    return Sum(size, total.hexdigest())


def content_key(*parts: str) -> str:
    """One hash over several strings, none of which can run into the next."""
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
