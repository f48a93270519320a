from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from pytest_hil.errors import ImageError
from pytest_hil.qemu.image.sums import Sums


def make_old(path: Path) -> None:
    then = time.time_ns() - 10 * 10**9
    os.utime(path, ns=(then, then))


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_file_is_read_only_once(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"one")
    make_old(path)
    state = path.stat()
    sums = Sums(tmp_path / "cache")
    assert sums.sha256(path) == sha256(b"one")

    # Other contents behind the same facts: who reads them again would notice.
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert Sums(tmp_path / "cache").sha256(path) == sha256(b"one")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    sums = Sums(tmp_path / "cache")
    path.write_bytes(b"one")
    make_old(path)
    assert sums.sha256(path) == sha256(b"one")

    path.write_bytes(b"two")

    assert sums.sha256(path) == sha256(b"two")


def test_a_file_that_just_changed_is_not_remembered(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"one")
    state = path.stat()
    sums = Sums(tmp_path / "cache")
    sums.sha256(path)

    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))

    assert sums.sha256(path) == sha256(b"two")


def test_a_damaged_note_and_no_place_for_notes_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"one")
    make_old(path)
    sums = Sums(tmp_path / "cache")
    sums.sha256(path)
    [note] = (tmp_path / "cache/sums").iterdir()
    note.write_text("{")

    assert sums.sha256(path) == sha256(b"one")
    (tmp_path / "file").write_text("")
    assert Sums(tmp_path / "file").sha256(path) == sha256(b"one")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="gone cannot be read: No such file"):
        Sums(tmp_path).sha256(tmp_path / "gone")
