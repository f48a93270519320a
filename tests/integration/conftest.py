"""Real machines for the tests of this directory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.qemu.guest import Guest


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A bench with the built-in targets, emulated: the figures of both accelerators differ."""
    with Bench(Settings(root=tmp_path_factory.mktemp("bench"), accel="tcg")) as made:
        yield made


@pytest.fixture
def guest(bench: Bench) -> Iterator[Guest]:
    """A fresh x86-64 machine."""
    made = bench.open(bench.target("qemu"))
    yield made
    made.close()


@pytest.fixture
def boards(tmp_path: Path) -> Path:
    """Where a boards.toml of the test's own would be."""
    return tmp_path / "boards.toml"
