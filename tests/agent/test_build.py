"""The agent's binaries."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.agent import build
from pytest_hil.errors import ImageError

# e_machine of an ELF header.
ELF_MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40, "riscv64": 243}


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sources with no binary."""
    copy = tmp_path / "agent"
    shutil.copytree(build.HERE, copy, ignore=shutil.ignore_patterns("bin", "__pycache__"))
    monkeypatch.setattr(build, "HERE", copy)
    monkeypatch.setattr(build, "BIN", copy / "bin")
    return copy


def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_is_static_and_knows_its_build(checkout: Path) -> None:
    said: list[str] = []
    path = build.binary("x86_64", progress=said.append)
    assert said == ["compiling the agent for x86_64 (the first time takes half a minute)"]
    header = path.read_bytes()
    assert int.from_bytes(header[18:20], "little") == ELF_MACHINES["x86_64"]
    assert b"/ld-musl" not in header
    assert build.source_hash().encode() in header
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "hil-agent.x86_64",
        "hil-agent.x86_64.hash",
    ]
    assert process.run([str(path), "--version"]).stdout.startswith(b"hil-agent ")


def test_is_built_once_and_again_when_a_source_changes(checkout: Path) -> None:
    said: list[str] = []
    path = build.binary("x86_64", progress=said.append)
    inode = path.stat().st_ino
    assert build.binary("x86_64", progress=said.append).stat().st_ino == inode
    with (checkout / "agent.c").open("a") as source:
        source.write("/* changed */\n")
    assert build.binary("x86_64", progress=said.append).stat().st_ino != inode
    assert len(said) == 2


def test_a_source_that_does_not_compile_leaves_the_old_binary(checkout: Path) -> None:
    path = build.binary("x86_64")
    before = path.read_bytes()
    (checkout / "agent.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(ImageError, match=r"could not be compiled(.|\n)*nothing"):
        build.binary("x86_64")
    assert path.read_bytes() == before
    assert len(list(path.parent.iterdir())) == 2


def test_without_a_compiler_says_what_to_install(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_compiler(monkeypatch)
    with pytest.raises(ImageError, match=r"is not there.*\n.*pip install ziglang"):
        build.binary("x86_64")


def test_without_a_compiler_a_binary_that_fits_is_enough(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build.binary("x86_64")
    no_compiler(monkeypatch)
    assert build.binary("x86_64") == path
    (checkout / "agent.c").write_text("")
    with pytest.raises(ImageError, match="is older than its sources"):
        build.binary("x86_64")


def test_an_unknown_architecture() -> None:
    with pytest.raises(ImageError, match=r"no agent for mips\n.*known: x86_64, aarch64"):
        build.binary("mips")
