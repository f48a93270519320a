"""``pytest-hil doctor``: on this host, and on broken ones."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.cli.checks.check import Check, ok, perform
from pytest_hil.console.stream import clean
from pytest_hil.errors import MachineError

if TYPE_CHECKING:
    from tests.cli.conftest import Cli, Terminal


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["check"]: row for row in answer["checks"]}


@pytest.fixture
def few_programs(cli: Cli, tmp_path: Path) -> Path:
    """A PATH with only what a shell script would need."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("setpriv", "true"):
        found = Path("/usr/bin", name)
        (folder / name).symlink_to(found)
    cli.env["PATH"] = str(folder)
    # What an earlier QEMU said is remembered there.
    cli.env["PYTEST_HIL_CACHE"] = str(tmp_path / "cache")
    return folder


@pytest.mark.machine
def test_a_host_that_has_all_it_needs(cli: Cli) -> None:
    answer = cli.json("doctor")
    assert answer["status"] in ("ok", "note")
    checks = by_name(answer)
    assert checks["QEMU"]["facts"]["version"][0].isdigit()
    assert checks["accelerator"]["facts"]["accel"] in ("kvm", "tcg")
    assert checks["memory"]["facts"]["budget"] > 2**28
    assert checks["boards.toml"]["text"].startswith("none here")


def test_a_host_without_qemu(cli: Cli, few_programs: Path) -> None:
    done = cli("doctor", code=1)
    assert "QEMU         PROBLEM" in done.stdout
    assert "→ install it: apt-get install qemu-system-" in done.stdout
    assert "1 problem" in done.stdout
    assert done.stderr == ""
    checks = by_name(cli.json("doctor", code=1))
    assert checks["apt"]["status"] == "note"
    assert checks["qemu-img"]["mend"] == "install it: apt-get install qemu-utils"
    assert checks["accelerator"]["status"] == "note"
    assert [name for name, row in checks.items() if row["status"] == "problem"] == ["QEMU"]


def test_a_qemu_that_is_too_old_and_one_that_is_broken(cli: Cli, few_programs: Path) -> None:
    qemu = few_programs / f"qemu-system-{os.uname().machine}"
    (few_programs / "sh").symlink_to("/bin/sh")
    qemu.write_text("#!/bin/sh\necho 'QEMU emulator version 2.8.1'\n")
    qemu.chmod(0o755)
    row = by_name(cli.json("doctor", code=1))["QEMU"]
    assert "is QEMU 2.8.1" in row["text"]
    assert row["mend"] == "install a newer QEMU"
    qemu.write_text("#!/bin/sh\necho 'error while loading shared libraries' >&2\nexit 127\n")
    row = by_name(cli.json("doctor", code=1))["QEMU"]
    assert "error while loading shared libraries" in row["text"]


def test_a_host_without_setpriv(cli: Cli, few_programs: Path) -> None:
    (few_programs / "setpriv").unlink()
    row = by_name(cli.json("doctor", code=1))["setpriv"]
    assert row["mend"] == "install it: apt-get install util-linux"
    # busybox has one that cannot do it.
    (few_programs / "sh").symlink_to("/bin/sh")
    (few_programs / "setpriv").write_text("#!/bin/sh\necho 'unrecognized option' >&2\nexit 1\n")
    (few_programs / "setpriv").chmod(0o755)
    row = by_name(cli.json("doctor", code=1))["setpriv"]
    assert "unrecognized option" in row["text"]


def test_a_wrong_boards_toml(cli: Cli, few_programs: Path) -> None:
    (cli.cwd / "boards.toml").write_text('[target.a]\nbackend = "qemu"\nmemroy = "1G"\n')
    row = by_name(cli.json("doctor", code=1))["boards.toml"]
    assert row["status"] == "problem"
    assert "did you mean 'memory'?" in row["text"] + row["mend"]


def test_a_cache_that_cannot_be(cli: Cli, few_programs: Path) -> None:
    (few_programs / "file").touch()
    cli.env["PYTEST_HIL_CACHE"] = str(few_programs / "file" / "cache")
    row = by_name(cli.json("doctor", code=1))["cache"]
    assert "cannot be written" in row["text"]
    assert "PYTEST_HIL_CACHE=DIR" in row["mend"]


def test_a_runtime_directory_of_somebody_else(cli: Cli, few_programs: Path) -> None:
    base = Path(cli.env["TMPDIR"]) / f"pytest-hil-{os.getuid()}"
    base.mkdir(exist_ok=True)
    base.chmod(0o777)
    row = by_name(cli.json("doctor", code=1))["runtime dir"]
    assert "is not ours alone" in row["text"]
    assert "rm -r" in row["mend"]
    base.chmod(0o700)


def test_a_wrong_budget(cli: Cli, few_programs: Path) -> None:
    cli.env["PYTEST_HIL_MEMORY_BUDGET"] = "much"
    row = by_name(cli.json("doctor", code=1))["memory"]
    assert "PYTEST_HIL_MEMORY_BUDGET" in row["text"]
    cli.env["PYTEST_HIL_MEMORY_BUDGET"] = "64M"
    assert by_name(cli.json("doctor", code=1))["memory"]["status"] == "problem"


def test_what_killed_runs_left(cli: Cli, few_programs: Path) -> None:
    script = "from pytest_hil.qemu import runtime; print(runtime.directory('disk'))"
    subprocess.run([sys.executable, "-c", script], env=cli.env, check=True, timeout=60)
    row = by_name(cli.json("doctor", code=1))["left behind"]
    assert row["status"] == "note"
    assert row["mend"] == "pytest-hil clean"
    cli("clean")
    assert by_name(cli.json("doctor", code=1))["left behind"]["status"] == "ok"


def test_it_fits_into_a_terminal(cli: Cli, few_programs: Path, terminal: Terminal) -> None:
    with terminal("doctor") as screen:
        screen.setwinsize(24, 80)
        said = screen.read()
    # The status line is wiped by the line that follows it.
    lines = [line.rpartition("\r")[2] for line in clean(said.encode()).splitlines()]
    assert any(line.startswith("boards.toml") for line in lines)
    # A path is not cut in two, however long it is.
    assert [line for line in lines if len(line) > 80 and max(map(len, line.split())) < 59] == []
    assert "\x1b[1;31mPROBLEM" in said


def test_a_check_that_hangs_and_one_that_breaks() -> None:
    never = threading.Event()
    found = perform(Check("hangs", lambda: ok(str(never.wait())), timeout=0.1))
    assert (found.status, found.text) == ("problem", "no answer within 0.1 s: something hangs")
    never.set()

    def breaks() -> Any:
        raise RecursionError("deep")

    found = perform(Check("breaks", breaks))
    assert found.text == "could not be checked: RecursionError: deep"

    def refuses() -> Any:
        raise MachineError("no", mend="yes")

    found = perform(Check("refuses", refuses))
    assert (found.status, found.text, found.mend) == ("problem", "no", "yes")
