"""From an image's description to the files that a machine boots."""

from __future__ import annotations

from pathlib import Path

from pytest_hil.agent.build import binary
from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage, FilesImage, ImageSpec, UrlImage
from pytest_hil.errors import ConfigError
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu.image.debian import DebianBuild
from pytest_hil.qemu.image.distribution import host_distribution
from pytest_hil.qemu.image.download import fetch
from pytest_hil.qemu.image.manifest import KIND, Image, Manifest, content_key
from pytest_hil.qemu.image.recipe import recipe_key
from pytest_hil.qemu.image.sums import Sums

_KEPT = 30 * 86400.0
"""Images that nobody has used for so many seconds go when a new one is built."""


def resolve(
    spec: ImageSpec,
    *,
    arch: str,
    cache: Cache,
    progress: Progress = silent,
    refresh: bool = False,
) -> Image:
    """The image, built or fetched if it is not here yet; a few milliseconds if it is.

    ``refresh`` builds a debian image anew, from today's packages. Raises ImageError and its
    kin, ToolMissing, NoRoom, and ConfigError when the image is for another architecture.
    """
    if spec.arch is not None and spec.arch != arch:
        raise ConfigError(
            f"[image.{spec.name}] arch",
            f"the image is for {spec.arch}, the target is {arch}",
            mend=f"give the target arch = {spec.arch!r}, or another image",
        )
    match spec:
        case DebianImage():
            return _debian(spec, arch, cache, progress, refresh)
        case FilesImage():
            return _files(spec, arch, cache)
        case UrlImage():
            return _url(spec, arch, cache, progress)


def _debian(spec: DebianImage, arch: str, cache: Cache, progress: Progress, refresh: bool) -> Image:
    agent = binary(arch, progress=progress)
    distribution = host_distribution()
    key = recipe_key(spec, arch=arch, agent=agent, distribution=distribution, sums=Sums(cache.root))
    build = DebianBuild(
        spec=spec,
        arch=arch,
        agent=agent,
        distribution=distribution,
        cache=cache,
        progress=progress,
        renew=refresh,
    )
    if cache.get(KIND, key) is None:
        # Each change of a recipe is a new image; the old ones must not fill the disk.
        cache.prune(KIND, unused_for=_KEPT)
    if refresh:
        folder = cache.replace(KIND, key, build, progress=progress)
    else:
        folder = cache.make(KIND, key, build, progress=progress)
    manifest = Manifest.read(folder)
    if manifest is None or not manifest.same_sizes(folder):
        # A power cut may keep the names of files and lose what was in them.
        progress(f"the image {key} in the cache is damaged: building it again")
        folder = cache.replace(KIND, key, build, progress=progress)
        manifest = Manifest.read(folder)
        assert manifest is not None  # it was just written
    return manifest.image(folder)


def _files(spec: FilesImage, arch: str, cache: Cache) -> Image:
    """The user's files where they are: never copied, never written."""
    sums = Sums(cache.root)
    paths = (spec.kernel, spec.initrd, spec.disk)
    return _image(spec, arch, [(path, sums.sha256(path)) if path else None for path in paths])


def _url(spec: UrlImage, arch: str, cache: Cache, progress: Progress) -> Image:
    files = (spec.kernel, spec.initrd, spec.disk)
    return _image(
        spec,
        arch,
        [
            (fetch(file, cache=cache, progress=progress), file.sha256) if file else None
            for file in files
        ],
    )


def _image(spec: FilesImage | UrlImage, arch: str, files: list[tuple[Path, str] | None]) -> Image:
    """``files``: path and sum of the kernel, the initrd and the disk."""
    kernel, initrd, disk = (file[0].absolute() if file else None for file in files)
    sums = [file[1].lower() if file else "" for file in files]
    return Image(
        key=content_key(*sums, spec.append, str(spec.agent)),
        name=spec.name,
        arch=arch,
        kernel=kernel,
        initrd=initrd,
        append=spec.append,
        disks=(disk,) if disk else (),
        agent=spec.agent,
    )
