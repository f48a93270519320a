"""A kernel's source out of the distribution's package, with the host's apt and a small package."""

from __future__ import annotations

import io
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.cache import Cache
from pytest_hil.errors import ImageError, ToolMissing
from pytest_hil.qemu.image.distribution import DEBIAN
from pytest_hil.qemu.kernel_build import tools
from pytest_hil.qemu.kernel_build.source import KIND, Source, of_distribution


def tarball(sublevel: int) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:xz") as tar:
        for name, text in (
            ("Makefile", f"VERSION = 6\nPATCHLEVEL = 1\nSUBLEVEL = {sublevel}\nEXTRAVERSION =\n"),
            ("Kconfig", ""),
        ):
            info = tarfile.TarInfo(f"linux-source-6.1/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


def add(repository: Any, sublevel: int, data: bytes | None = None) -> None:
    name = f"linux-source-6.{sublevel}"
    files = {
        f"usr/src/{name}/{name}.tar.xz": tarball(sublevel) if data is None else data,
        f"usr/src/{name}.tar.xz": f"{name}/{name}.tar.xz",
    }
    repository.add(name, files, version=f"6.1.{sublevel}-1", depends="other")
    if sublevel == 1:
        repository.add("other", {})
    shutil.rmtree(repository.root / "tree" / "linux-source", ignore_errors=True)
    repository.add("linux-source", {}, version=f"6.1.{sublevel}-1", depends=name)


@pytest.fixture(autouse=True)
def tar_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "TOOLS", {"tar": "tar", "xz": "xz-utils"})
    monkeypatch.setattr(tools, "HEADERS", {})


def fetched(repository: Any, root: Path, said: list[str], *, refresh: bool = False) -> Source:
    distribution = replace(DEBIAN, release="12", sources_list=repository.sources_list)
    return of_distribution(
        Cache(root),
        arch="x86_64",
        progress=said.append,
        refresh=refresh,
        distribution=distribution,
    )


def test_it_is_fetched_once_and_renewed_when_asked_for(repository: Any, tmp_path: Path) -> None:
    add(repository, 1)
    said: list[str] = []
    first = fetched(repository, tmp_path / "cache", said)
    assert (first.version, first.identity) == ("6.1.1", "debian-12-linux-source-6.1_6.1.1-1")
    assert sorted(path.name for path in first.tree.parent.iterdir()) == [
        ".used",
        "manifest.json",
        "tree",
    ]
    assert "unpacking linux-source-6.1" in said
    said.clear()
    assert fetched(repository, tmp_path / "cache", said) == first
    assert said == []
    (first.tree / "Makefile").unlink()
    assert fetched(repository, tmp_path / "cache", said) == first
    assert (first.tree / "Makefile").is_file()
    add(repository, 2)
    assert fetched(repository, tmp_path / "cache", said) == first
    assert fetched(repository, tmp_path / "cache", said, refresh=True).version == "6.1.2"
    assert fetched(repository, tmp_path / "cache", said).version == "6.1.2"


def test_a_damaged_package_leaves_nothing(repository: Any, tmp_path: Path) -> None:
    add(repository, 1, b"no tarball")
    with pytest.raises(ImageError, match="cannot be unpacked"):
        fetched(repository, tmp_path / "cache", [])
    assert list((tmp_path / "cache" / KIND).iterdir()) == []


def test_nothing_is_fetched_where_nothing_can_be_built(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools, "TOOLS", {"no-flex": "flex"})
    with pytest.raises(ToolMissing, match="apt-get install flex"):
        fetched(repository, tmp_path / "cache", [])
    assert not (tmp_path / "cache").exists()
