"""A C program in the machine: `pytest --hil-target=qemu --hil-cov=.` says what of it ran."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_hil import Target

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not installed")
    build = tmp_path_factory.mktemp("build")
    sources = [HERE / "work.c", HERE / "program.c"]
    # Static: the machine has none of this host's libraries.
    options = ["--coverage", "-static", "-o", "program"]
    subprocess.run(["gcc", *options, *sources], cwd=build, check=True)
    return build / "program"


@pytest.mark.parametrize(("value", "kind"), [(-5, -1), (0, 0), (50, 1), (101, 2)])
def test_classify(hil: Target, program: Path, value: int, kind: int) -> None:
    hil.put(program, "/usr/bin/program")
    assert hil.run(["program", str(value)]).stdout == f"{kind}\n"
