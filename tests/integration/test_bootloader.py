"""Files at a bootloader's prompt: real U-Boot on an emulated arm64 board."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.board.board import Board
from pytest_hil.errors import TransferError, Unsupported
from pytest_hil.rig.rig import Rig
from pytest_hil.shell.xmodem import Protocol

pytestmark = pytest.mark.machine

ADDRESS = 0x44000000
SIZES: dict[Protocol, int] = {"xmodem": 1_001, "xmodem-1k": 10_001, "ymodem": 10_001}


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    with pytest.MonkeyPatch.context() as patch, Rig(boards=1, kinds=("arm64",)) as rig:
        for name, value in rig.environment.items():
            patch.setenv(name, value)
        settings = Settings(root=tmp_path, boards=rig.boards_toml, lab=tmp_path / "lab")
        with Bench(settings) as bench:
            target = bench.open(bench.describe("rig1"))
            assert isinstance(target, Board)
            yield target
            target.close()


def test_a_file_into_its_memory(board: Board, tmp_path: Path) -> None:
    board.boot("bootloader")
    for protocol, size in SIZES.items():
        # No SUB at the end: U-Boot takes that for XMODEM's filling.
        data = os.urandom(size - 1) + b"\0"
        (tmp_path / "image").write_bytes(data)
        said = board.bootloader.send(tmp_path / "image", address=ADDRESS, protocol=protocol)
        assert f"= {size} Bytes" in said.stdout
        summed = board.bootloader.run(f"crc32 {ADDRESS:x} {size:x}").stdout
        assert f"==> {zlib.crc32(data):08x}" in summed
    with pytest.raises(TransferError, match="nothing-there"):
        board.bootloader.send(tmp_path / "nothing-there")
    with pytest.raises(Unsupported, match="kermit"):
        board.bootloader.send(tmp_path / "image", protocol="kermit")  # type: ignore[arg-type]
    assert "U-Boot" in board.bootloader.run("version").stdout
