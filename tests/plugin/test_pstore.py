"""hil_pstore: what a kernel wrote down before it restarted, on machines that do so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.crash.test_pstore import PANIC

pytestmark = pytest.mark.machine

# A reset leaves a machine's memory as it is, and this part of it nobody else uses.
RAMOOPS = (
    "memmap=1M$0x8000000 ramoops.mem_address=0x8000000 ramoops.mem_size=0x100000 "
    "ramoops.record_size=0x10000"
)

BOARDS = f"""
[image.pstore]
modules = ["ramoops"]
append = "{RAMOOPS}"

[image.found]
files = {{ "/var/lib/systemd/pstore/1/dmesg-ramoops-0" = "record" }}

[target.pstore]
backend = "qemu"
arch = "x86_64"
image = "pstore"

[target.found]
backend = "qemu"
image = "found"
"""

HELPERS = """
import pytest
QUIET = "echo N > /sys/class/tty/ttyS0/console; "
PANIC = "echo -1 > /proc/sys/kernel/panic; echo c > /proc/sysrq-trigger"
def panics(hil):
    with hil.machine.monitor.waiter("RESET") as restart:
        # Later: its answer has come when it panics.
        hil.run(QUIET + f"(sleep 0.2; {PANIC}) > /dev/null 2>&1 &")
        restart.wait(30)
"""


def failures(inner: Any) -> list[str]:
    lines = inner.text.splitlines()
    return [line.partition("::")[2] for line in lines if line.startswith(("FAILED", "ERROR"))]


@pytest.fixture
def configured(inner: Any) -> Any:
    inner.write(BOARDS, "boards.toml")
    inner.write("[pytest]\nhil_pstore = true\n", "pytest.ini")
    return inner


def run(inner: Any, *options: str) -> int:
    code: int = inner.run(*options, "--hil-accel=tcg", env={"COLUMNS": "200"})
    return code


def test_a_crash_that_only_the_record_has(configured: Any) -> None:
    configured.write(
        f"""{HELPERS}
def test_hidden(hil):
    panics(hil)
    assert hil.run("echo up").ok
def test_while_a_command_ran(hil):
    hil.run(QUIET + PANIC + "; sleep 60")
@pytest.mark.hil(crash_ignore=["sysrq"])
def test_no_matter(hil):
    panics(hil)
def test_shown_and_wanted(hil):
    with hil.crashes("sysrq"):
        hil.run(PANIC + "; sleep 60")
    hil.run("mount -t pstore p /sys/fs/pstore && [ -e /sys/fs/pstore/dmesg-ramoops-0 ]")
def test_well(hil):
    assert hil.run("echo well").ok
"""
    )
    assert run(configured, "--hil-target=pstore") == 1
    title = "crash: panic: sysrq triggered crash"
    assert failures(configured) == [
        f"test_hidden - {title}",
        f"test_while_a_command_ran - {title}",
    ], configured.text
    assert "3 passed" in configured.text
    records = list(Path(configured.directory, ".hil", "latest").glob("*/pstore/*/dmesg-ramoops-0"))
    tests = {path.parents[2].name.partition("--")[2].partition("@")[0] for path in records}
    assert tests == {
        *("test_hidden", "test_while_a_command_ran", "test_no_matter", "test_shown_and_wanted")
    }
    assert all(b"sysrq triggered crash" in path.read_bytes() for path in records)
    configured.write("[pytest]\n", "pytest.ini")
    assert run(configured, "--hil-target=pstore", "-k", "hidden") == 0, "nobody asked for it"


def test_a_target_of_several_tests(configured: Any) -> None:
    configured.write(
        f"""{HELPERS}
def test_shown_and_wanted(hil):
    with hil.crashes("sysrq"):
        hil.run(PANIC + "; sleep 60")
def test_the_same_once_more(hil):
    panics(hil)
@pytest.fixture
def late(hil):
    yield
    panics(hil)
def test_first(hil, late): pass
def test_second(hil): pass
def test_third(hil):
    assert not hil.run("ls /sys/fs/pstore").stdout
"""
    )
    assert run(configured, "--hil-target=pstore", "--hil-scope=module") == 1
    again, between = failures(configured)
    assert again == "test_the_same_once_more - crash: panic: sysrq triggered crash"
    assert between.startswith("test_second - crash: the target pstore crashed before this test")
    assert between.endswith("panic: sysrq triggered crash")
    assert "3 passed" in configured.text


def test_a_record_from_before_the_run(configured: Any) -> None:
    """It is said once, and fails nobody."""
    configured.write(f"Panic#1 Part1\n{PANIC}", "record")
    configured.write(
        """
def test_first(hil): pass
def test_second(hil):
    assert not hil.run("find /var/lib/systemd/pstore -type f").stdout
"""
    )
    assert run(configured, "--hil-target=found") == 0
    said = "the target found crashed before this run: panic: sysrq triggered crash"
    assert configured.text.count(said) == 1, configured.text


def test_a_record_that_cannot_be_removed(configured: Any) -> None:
    """It is one test's, not everybody's from then on."""
    configured.write(f"Panic#1 Part1\n{PANIC}", "record")
    configured.write(
        """
def test_first(hil): pass
def test_second(hil):
    hil.run('''cd /var/lib/systemd/pstore && { echo "Panic#1 Part1"; dmesg; } > dmesg-2 &&
    mount -o bind . . && mount -o remount,bind,ro "$PWD"''')
def test_third(hil): pass
"""
    )
    assert run(configured, "--hil-target=found", "--hil-scope=module") == 1
    (line,) = failures(configured)
    assert line.startswith("test_second - crash: panic: pstore has the kernel's log")
    assert "2 passed" in configured.text
    assert configured.text.count("keeps its records of crashes") == 1, configured.text
