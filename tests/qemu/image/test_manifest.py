from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hil.qemu.image.manifest import FORMAT, Manifest, content_key, sum_of


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    (tmp_path / "kernel").write_bytes(b"kernel")
    (tmp_path / "initrd").write_bytes(b"initrd")
    made = Manifest(
        name="debian",
        key="k",
        arch="x86_64",
        kernel="kernel",
        initrd="initrd",
        append="console=ttyS0",
        agent=True,
        built=1.5,
        unpacked=10,
        files={name: sum_of(tmp_path / name) for name in ("kernel", "initrd")},
        packages={"usbip": "2.0"},
        modules=("a", "b"),
    )
    made.write(tmp_path)
    return made


def test_it_is_read_as_it_was_written(manifest: Manifest, tmp_path: Path) -> None:
    assert Manifest.read(tmp_path) == manifest
    image = manifest.image(tmp_path)
    assert (image.kernel, image.initrd) == (tmp_path / "kernel", tmp_path / "initrd")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 1}', "null"])
def test_a_damaged_one_is_none(manifest: Manifest, tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)

    assert Manifest.read(tmp_path) is None


def test_another_format_is_none(manifest: Manifest, tmp_path: Path) -> None:
    replace(manifest, format=FORMAT + 1).write(tmp_path)

    assert Manifest.read(tmp_path) is None


def test_damage_is_found(manifest: Manifest, tmp_path: Path) -> None:
    assert manifest.damage(tmp_path) == []
    assert manifest.same_sizes(tmp_path)

    (tmp_path / "kernel").write_bytes(b"Kernel")
    assert manifest.same_sizes(tmp_path)
    assert "kernel has sha256" in manifest.damage(tmp_path)[0]

    (tmp_path / "kernel").write_bytes(b"")
    assert not manifest.same_sizes(tmp_path)

    (tmp_path / "initrd").unlink()
    assert not manifest.same_sizes(tmp_path)
    assert manifest.damage(tmp_path)[1] == "initrd is missing"


def test_no_part_of_a_key_runs_into_the_next() -> None:
    assert content_key("a", "bc") != content_key("ab", "c")
    assert content_key("a", "") != content_key("a")
