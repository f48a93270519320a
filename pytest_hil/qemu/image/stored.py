"""What is in the cache of images and of the files fetched for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pytest_hil.cache import Cache, Entry
from pytest_hil.qemu.image import download, manifest
from pytest_hil.qemu.image.manifest import Manifest


@dataclass(frozen=True, slots=True)
class Stored:
    """An image, or a fetched file. ``arch`` "": a fetched file says nothing about that.

    ``what`` is a built image's kernel, or the URL of a fetched file. ``manifest`` None: a
    fetched file, or an image of another pytest-hil.
    """

    entry: Entry
    name: str
    arch: str
    what: str
    manifest: Manifest | None = None

    @property
    def path(self) -> Path:
        return self.entry.path

    def damage(self) -> list[str]:
        """What is wrong with its files, one sentence each; reads them all."""
        if self.entry.kind == download.KIND:
            return download.damage(self.path)
        if self.manifest is None:
            return ["made by another version of pytest-hil: it is not used any more"]
        return self.manifest.damage(self.path)


def stored(cache: Cache) -> list[Stored]:
    """All images and fetched files, the last used first."""
    images = [_image(entry) for entry in cache.entries(manifest.KIND)]
    return images + [_download(entry) for entry in cache.entries(download.KIND)]


def _image(entry: Entry) -> Stored:
    found = Manifest.read(entry.path)
    if found is None:
        return Stored(entry, entry.key, "", "of another version of pytest-hil")
    return Stored(entry, found.name, found.arch, f"Linux {found.kernel_version}".rstrip(), found)


def _download(entry: Entry) -> Stored:
    found = download.read_manifest(entry.path) or {}
    return Stored(entry, str(found.get("file", entry.key)), "", str(found.get("url", "")))
