"""``pytest-hil clean``: what goes, and what must not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil import process
from pytest_hil.artifacts.store import Run
from pytest_hil.cache import Cache
from tests.cli.conftest import ARGV
from tests.unprivileged import UNPRIVILEGED

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

LEAVE = """
import os, sys
from pytest_hil.qemu import runtime
directory = runtime.directory("disk")
(directory / "0.qcow2").write_bytes(bytes(range(256)) * 4096)
print(directory, flush=True)
sys.stdin.read()
"""

ORPHAN = """
import sys
from pytest_hil import process
from pytest_hil.qemu.room import Room
def launch():
    return process.start(["sleep", "1000"], outlive=True)
print(Room().start("lost", 2**20, launch, timeout=0).pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cache(cli: Cli, tmp_path: Path) -> Cache:
    """One with an old and a new template, an image and a fetched file."""
    cli.env["PYTEST_HIL_CACHE"] = str(tmp_path / "cache")
    cache = Cache(tmp_path / "cache")

    def fill(path: Path) -> None:
        (path / "file").write_bytes(bytes(100_000))

    for kind, key in (
        ("templates", "old"),
        ("templates", "new"),
        ("image", "debian-x"),
        ("download", "f"),
    ):
        cache.make(kind, key, fill)
    eight_days_ago = time.time() - 8 * 86400
    os.utime(cache.root / "templates" / "old" / ".used", (eight_days_ago, eight_days_ago))
    return cache


def keys(cache: Cache) -> list[str]:
    return sorted(
        entry.key for kind in ("templates", "image", "download") for entry in cache.entries(kind)
    )


def of_a_process(cli: Cli, script: str, *, kill: bool) -> tuple[str, subprocess.Popen[bytes]]:
    """What a process said in its first line; it lives until its stdin ends, or is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", script], env=cli.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    said = child.stdout.readline().decode().strip()
    assert said
    if kill:
        child.kill()
        child.wait(20)
    return said, child


def test_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    cli.env["PYTEST_HIL_CACHE"] = str(tmp_path / "none")
    assert cli("clean", "--all").stdout == "nothing to remove\n"
    assert cli.json("clean") == []


def test_directories_of_killed_runs_go_and_those_of_live_ones_stay(cli: Cli, cache: Cache) -> None:
    lost, killed = of_a_process(cli, LEAVE, kill=True)
    used, living = of_a_process(cli, LEAVE, kill=False)
    with killed, living:
        assert "would remove the directory" in cli("clean", "--dry-run").stdout
        assert Path(lost).exists()
        assert keys(cache) == ["debian-x", "f", "new", "old"]
        (directory, _template) = cli.json("clean")
        assert directory["name"].startswith(str(Path(lost).parent))
        assert directory["bytes"] >= 2**20
        assert directory["removed"]
        assert not Path(lost).exists()
        assert Path(used).exists()
        living.kill()


def test_machines_without_a_run_are_ended(cli: Cli, cache: Cache) -> None:
    pid, maker = of_a_process(cli, ORPHAN, kill=True)
    with maker:
        assert process.start_time(int(pid)) is not None
        assert f"removed the machine lost (QEMU {pid})" in cli("clean").stdout
        assert process.wait_for_pid(int(pid), 10)


def test_old_templates_go_by_default(cli: Cli, cache: Cache) -> None:
    assert "removed the template old" in cli("clean").stdout
    assert keys(cache) == ["debian-x", "f", "new"]


def test_what_is_asked_for_goes(cli: Cli, cache: Cache) -> None:
    assert cli.json("clean", "--older-than", "100") == []
    cli("clean", "--templates", "--older-than", "2")
    assert keys(cache) == ["debian-x", "f", "new"]
    cli("clean", "--templates")
    assert keys(cache) == ["debian-x", "f"]
    cli("clean", "--images")
    assert keys(cache) == []
    assert "not a number of days" in cli.error("clean", "--older-than", "-1")


def test_runs(cli: Cli, cache: Cache) -> None:
    assert "there is no .hil here nor above" in cli.error("clean", "--runs")
    old = Run.create(cli.cwd / ".hil")
    old.finish()
    going_on = Run.create(cli.cwd / ".hil")
    said = cli("clean", "--runs").stdout
    assert f"removed the run {old.id}" in said
    assert f"kept the run {going_on.id}: it still goes on" in said
    assert going_on.path.exists()
    assert not old.path.exists()


@pytest.mark.parametrize(
    "words",
    [("artifacts", "clean", "--all"), ("artifacts", "clean", "--keep=1"), ("clean", "--runs")],
)
def test_what_cannot_be_removed_is_said(cli: Cli, cache: Cache, words: tuple[str, ...]) -> None:
    runs = [Run.create(cli.cwd / ".hil") for _ in range(3)]
    for each in runs:
        each.finish()
        (each.path / "t").mkdir()
        (each.path / "t" / "file").touch()
    oldest = min(runs, key=lambda each: each.id).path

    def done(place: Path, mode: int) -> subprocess.CompletedProcess[str]:
        place.chmod(mode)
        return subprocess.run(
            [*UNPRIVILEGED, *ARGV, *words],
            cwd=cli.cwd,
            env=cli.env,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # As on a file system that can only be read.
    said = done(oldest.parent, 0o555)
    assert said.returncode == 1
    assert f"pytest-hil: cannot be removed: {oldest}: Permission denied\n" in said.stderr
    assert "nothing to remove" not in said.stdout
    assert oldest.is_dir()
    oldest.parent.chmod(0o755)
    # One of them: the others go.
    said = done(oldest / "t", 0o555)
    assert said.returncode == 1
    (stuck,) = oldest.parent.glob(f".removing-{oldest.name}-*")
    assert said.stderr == f"pytest-hil: cannot be removed: {stuck}: Permission denied\n"
    assert sum(each.path.exists() for each in runs) == ("--keep=1" in words)
    (stuck / "t").chmod(0o755)


@pytest.mark.machine
def test_the_image_of_a_live_machine_stays(cli: Cli) -> None:
    cli("vm", "start", "--name", "mine")
    rows = cli.json("clean", "--all", "--dry-run")
    assert any(row["in_use"] == "the machine qemu runs from it" for row in rows)
    assert cli("vm", "run", "mine", "--", "echo alive").stdout == "alive\n"
