"""Files by URL, checked against their sums, kept in the cache.

What has arrived of a file is kept beside the cache's entries until it is whole, so that a
fetch that was interrupted, even by SIGKILL, goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from pytest_hil.cache import MANIFEST, Cache
from pytest_hil.config import Download
from pytest_hil.errors import ChecksumMismatch, ImageError
from pytest_hil.progress import Progress
from pytest_hil.qemu.image import transfer

KIND = "download"
"""The files' place in the cache."""


def fetch(what: Download, *, cache: Cache, progress: Progress, timeout: float = 30.0) -> Path:
    """The file, fetched if it is not in the cache; never to be written.

    ``timeout`` is how long the other side may say nothing, in seconds. Raises
    ChecksumMismatch when it is not what was asked for (nothing of it is kept), NoRoom when
    the disk is full, ImageError for everything else.
    """
    scheme = urlsplit(what.url).scheme
    if scheme not in ("http", "https", "file"):
        raise ImageError(f"{what.url}: only http, https and file URLs can be fetched")
    sha256 = what.sha256.lower()
    part = cache.root / "partial" / f"{_id(what.url, sha256)}.part"

    def build(folder: Path) -> None:
        part.parent.mkdir(exist_ok=True)
        got = _whole(what, part, progress, timeout)
        name = _name(what.url)
        manifest = {"url": what.url, "file": name, "size": part.stat().st_size, **got}
        part.chmod(0o444)
        part.rename(folder / name)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")

    folder = cache.make(KIND, sha256, build, progress=progress)
    manifest = read_manifest(folder)
    if manifest is None:
        progress(f"{what.url} in the cache is damaged: fetching it again")
        folder = cache.replace(KIND, sha256, build, progress=progress)
        manifest = read_manifest(folder)
        assert manifest is not None  # it was just written
    if what.sha512 and manifest["sha512"] != what.sha512.lower():
        cache.remove(KIND, sha256)
        raise ChecksumMismatch(
            what.url, algorithm="sha512", wanted=what.sha512, got=manifest["sha512"]
        )
    return folder / str(manifest["file"])


def damage(folder: Path) -> list[str]:
    """What is wrong with a fetched file, one sentence each; reads it all."""
    manifest = read_manifest(folder)
    if manifest is None:
        return ["its manifest or its file is missing or cut short"]
    got = _sums(folder / str(manifest["file"]))["sha256"]
    if got != manifest["sha256"]:
        return [f"{manifest['file']} has sha256 {got}, was fetched with {manifest['sha256']}"]
    return []


def _whole(what: Download, part: Path, progress: Progress, timeout: float) -> dict[str, str]:
    """Fetch until the file is there and right; its sums.

    A wrong sum after going on with an older part may be the older part's fault: once more,
    from the start.
    """
    resumed = part.exists() and part.stat().st_size > 0
    while True:
        try:
            transfer.fetch(what.url, part, progress=progress, timeout=timeout)
        except OSError:
            # The disk is full, most likely: what we have of the file must not keep it so.
            part.unlink(missing_ok=True)
            raise
        progress(f"checking {_name(what.url)}")
        sums = _sums(part)
        for algorithm, wanted in (("sha256", what.sha256), ("sha512", what.sha512)):
            if wanted and sums[algorithm] != wanted.lower():
                part.unlink()
                if resumed:
                    break
                raise ChecksumMismatch(
                    what.url, algorithm=algorithm, wanted=wanted, got=sums[algorithm]
                )
        else:
            return sums
        resumed = False


def _sums(path: Path) -> dict[str, str]:
    totals = {"sha256": hashlib.sha256(), "sha512": hashlib.sha512()}
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            for total in totals.values():
                total.update(chunk)
    return {name: total.hexdigest() for name, total in totals.items()}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What is known of a fetched file; None when that, or the file, is missing or cut short."""
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_bytes())
        size = (folder / str(manifest["file"])).stat().st_size
        return manifest if size == manifest["size"] and "sha512" in manifest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _name(url: str) -> str:
    """The file's own name, as it is shown."""
    name = unquote(urlsplit(url).path).rpartition("/")[2]
    return name if name.strip(".") and "\0" not in name and name != MANIFEST else "file"


def _id(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
