"""The directories that live only as long as their owner."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.qemu import runtime


@pytest.fixture(autouse=True)
def own_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_threads_make_and_remove_directories_at_once() -> None:
    def come_and_go() -> None:
        for _ in range(300):
            runtime.remove(runtime.directory("disk"))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(come_and_go) for _ in range(4)]:
            done.result()
    assert list(runtime.base().iterdir()) == []


def test_the_directories_of_the_dead_are_reaped() -> None:
    mine = runtime.directory("disk")
    dead = runtime.base() / "4194305.1"
    dead.mkdir()
    assert runtime.reap() == ["4194305.1"]
    assert not dead.exists()
    assert mine.exists()
