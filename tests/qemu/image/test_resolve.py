from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hil.cache import Cache
from pytest_hil.config import DebianImage, Download, FilesImage, UrlImage
from pytest_hil.errors import ConfigError, ImageError
from pytest_hil.qemu.image import resolve


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def files(tmp_path: Path) -> FilesImage:
    for name in ("kernel", "initrd", "disk"):
        (tmp_path / name).write_bytes(name.encode())
    return FilesImage(
        name="mine",
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        disk=tmp_path / "disk",
        append="quiet",
    )


def test_the_users_files_are_taken_where_they_are(files: FilesImage, cache: Cache) -> None:
    image = resolve(files, arch="x86_64", cache=cache)

    assert (image.kernel, image.initrd, image.disks) == (files.kernel, files.initrd, (files.disk,))
    assert (image.name, image.arch, image.append) == ("mine", "x86_64", "quiet")
    assert not image.agent
    assert resolve(files, arch="x86_64", cache=cache) == image


def test_the_key_changes_with_what_boots(files: FilesImage, cache: Cache, tmp_path: Path) -> None:
    keys = {resolve(files, arch="x86_64", cache=cache).key}
    for spec in (
        replace(files, append=""),
        replace(files, initrd=None),
        replace(files, disk=None, initrd=files.disk),
        replace(files, agent=True),
    ):
        keys.add(resolve(spec, arch="x86_64", cache=cache).key)
    for name in ("kernel", "initrd", "disk"):
        (tmp_path / name).write_bytes(b"other")
        keys.add(resolve(files, arch="x86_64", cache=cache).key)

    assert len(keys) == 8


def test_a_disk_alone(files: FilesImage, cache: Cache) -> None:
    image = resolve(replace(files, kernel=None, initrd=None), arch="x86_64", cache=cache)

    assert image.kernel is None
    assert image.disks == (files.disk,)


def test_a_missing_file_is_named(files: FilesImage, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "initrd").unlink()

    with pytest.raises(ImageError, match="initrd cannot be read"):
        resolve(files, arch="x86_64", cache=cache)


def test_a_url_image_is_fetched(files: FilesImage, cache: Cache, tmp_path: Path) -> None:
    def by_url(name: str) -> Download:
        path = tmp_path / name
        return Download(path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest().upper())

    spec = UrlImage(name="far", kernel=by_url("kernel"), disk=by_url("disk"), append="quiet")

    image = resolve(spec, arch="x86_64", cache=cache)

    assert image.kernel is not None
    assert image.kernel.read_bytes() == b"kernel"
    assert [disk.read_bytes() for disk in image.disks] == [b"disk"]
    assert image.initrd is None
    # What boots is the same, wherever it came from.
    assert image.key == resolve(replace(files, initrd=None), arch="x86_64", cache=cache).key


@pytest.mark.parametrize("spec", [DebianImage("mine", "aarch64"), FilesImage("mine", arch="arm")])
def test_an_image_for_another_architecture(spec: DebianImage | FilesImage, cache: Cache) -> None:
    with pytest.raises(ConfigError, match=rf"image\.mine\] arch: the image is for {spec.arch}"):
        resolve(spec, arch="x86_64", cache=cache)
