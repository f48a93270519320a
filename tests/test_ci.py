"""``.ci/run`` around the tiers: with a stand-in for them, which take half an hour."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name in (".ci", "scripts", "home"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    write(tmp_path, 'echo "tiers: $*"')
    return tmp_path


def write(checkout: Path, line: str) -> None:
    script = checkout / "scripts" / "test"
    script.write_text(f"#!/bin/sh\n{line}\n")
    script.chmod(0o755)


def run(checkout: Path, *words: str) -> tuple[int, str]:
    environment = {"HOME": str(checkout / "home"), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [str(checkout / ".ci" / "run"), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout


def test_all_tiers_on_a_host_that_has_nothing_yet(checkout: Path) -> None:
    assert run(checkout) == (0, "tiers: \ntiers: kernels\n")


def test_what_is_named_is_all_that_is_run(checkout: Path) -> None:
    assert run(checkout, "quick", "lint") == (0, "tiers: quick lint\n")


def test_what_fails_fails_at_once(checkout: Path) -> None:
    write(checkout, 'echo "tiers: $*"; exit 3')
    assert run(checkout) == (3, "tiers: \n")


def test_kernels_that_there_is_no_time_for_are_not_run(checkout: Path) -> None:
    text = (checkout / ".ci" / "run").read_text()
    assert "limit=1770\n" in text
    (checkout / ".ci" / "run").write_text(text.replace("limit=1770\n", "limit=900\n"))
    code, said = run(checkout)
    assert code == 0
    assert said.startswith("tiers: \n.ci/run: NOT RUN: the tests of instrumented kernels: ")
    (checkout / "home" / ".cache" / "pytest-hil" / "kernel").mkdir(parents=True)
    for number in range(2):
        place = checkout / "home" / ".cache" / "pytest-hil" / "kernel" / str(number)
        place.mkdir()
        (place / "bzImage").touch()
    assert run(checkout) == (0, "tiers: \ntiers: kernels\n")
