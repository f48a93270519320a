"""Whatever ends whom at whatever moment, nothing is left behind."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

pytestmark = pytest.mark.machine

QEMU = "--hil-target=qemu"

# A test that says when it has its machine, and then takes its time.
SLOW = """
import pathlib, time

def test_slow(hil):
    pathlib.Path("ready").touch()
    time.sleep(300)
"""


def wait_for_file(inner: Any, name: str) -> None:
    deadline = time.monotonic() + 120
    while not (inner.directory / name).exists():
        assert time.monotonic() < deadline, inner.text
        time.sleep(0.05)


def statuses(inner: Any) -> dict[str, str]:
    from pytest_hil.artifacts import index

    run = index.find_run(inner.directory / ".hil")
    return {test.nodeid.rpartition("::")[2]: test.status for test in run.tests()}


@pytest.mark.parametrize("more", [(), ("-n2",)], ids=["alone", "xdist"])
def test_ctrl_c_during_a_test(inner: Any, more: tuple[str, ...]) -> None:
    inner.write(SLOW)
    inner.start(QEMU, *more)
    wait_for_file(inner, "ready")
    assert any("qemu-system" in line for line in inner.processes())
    inner.signal(signal.SIGINT)
    assert inner.finish() == pytest.ExitCode.INTERRUPTED, inner.text
    assert "KeyboardInterrupt" in inner.text
    assert "INTERNALERROR" not in inner.text
    inner.wait_until_all_are_gone(15)
    assert inner.left() == []


@pytest.mark.parametrize("more", [(), ("-n2",)], ids=["alone", "xdist"])
def test_ctrl_c_while_the_template_is_made(
    inner_without_templates: Any, more: tuple[str, ...]
) -> None:
    inner = inner_without_templates
    inner.write(SLOW + "\ndef test_b(hil): pass\n")
    inner.start(QEMU, "--hil-accel=tcg", *more)
    inner.wait_for("booting")
    inner.signal(signal.SIGINT)
    assert inner.finish() == pytest.ExitCode.INTERRUPTED, inner.text
    inner.wait_until_all_are_gone(15)
    assert inner.left() == []
    assert list((inner.cache / "templates").iterdir()) == []


@pytest.mark.parametrize("more", [(), ("-n2",)], ids=["alone", "xdist"])
def test_pytest_is_killed(inner: Any, more: tuple[str, ...]) -> None:
    inner.write(SLOW)
    inner.start(QEMU, *more)
    wait_for_file(inner, "ready")
    inner.signal(signal.SIGKILL)
    inner.finish()
    inner.wait_until_all_are_gone(30)
    # A process that is ending still counts as one until it has.
    deadline = time.monotonic() + 10
    while statuses(inner) == {"test_slow": "running"} and time.monotonic() < deadline:
        time.sleep(0.05)
    assert statuses(inner) == {"test_slow": "interrupted"}
    # Who comes next tidies up.
    inner.write("def test_next(hil): hil.run('true')")
    assert inner.run(QEMU) == 0, inner.text
    assert inner.left() == []


def test_pytest_is_killed_while_the_template_is_made(inner_without_templates: Any) -> None:
    inner = inner_without_templates
    inner.write(SLOW)
    inner.start(QEMU, "--hil-accel=tcg")
    inner.wait_for("booting")
    inner.signal(signal.SIGKILL)
    inner.finish()
    inner.wait_until_all_are_gone(5)
    inner.write("def test_next(hil): hil.run('true')")
    assert inner.run(QEMU, "--hil-accel=tcg") == 0, inner.text
    assert inner.left() == []


def test_a_worker_is_killed(inner: Any) -> None:
    inner.write(
        """
import os, pathlib, signal, time, pytest

@pytest.mark.parametrize("n", range(6))
def test_it(hil, n):
    hil.run("true")
    if n == 2:
        pathlib.Path("machine").write_text(str(hil.machine.process.pid))
        os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    assert inner.run(QEMU, "-n2") == 1
    assert "1 failed, 5 passed" in inner.text
    assert "crashed while running 'test_inner.py::test_it[2]'" in inner.text
    assert inner.processes() == []
    assert inner.left() == []
    found = statuses(inner)
    assert found.pop("test_it[2]") == "interrupted"
    assert set(found.values()) == {"finished"}


def test_qemu_is_killed(inner: Any) -> None:
    inner.write(
        """
import os, signal

def test_dies(hil):
    os.kill(hil.machine.process.pid, signal.SIGKILL)
    hil.run("true")

def test_next(hil):
    hil.run("true")
        """
    )
    assert inner.run(QEMU) == 1
    assert "1 passed, 1 error" in inner.text
    assert "infrastructure: the machine qemu died" in inner.text
    assert inner.processes() == []
    assert inner.left() == []


def test_workers_say_what_they_do(inner_without_templates: Any) -> None:
    inner = inner_without_templates
    inner.write(
        "import pytest\n@pytest.mark.parametrize('n', range(4))\ndef test_it(hil, n): pass\n"
    )
    assert inner.run(QEMU, "-n2", "--hil-accel=tcg") == 0, inner.text
    lines = [line for line in inner.text.splitlines() if line.startswith("hil gw")]
    # One of them makes the template, the other one waits for it.
    said = {line.split(":")[0]: line for line in lines}
    assert set(said) == {"hil gw0", "hil gw1"}, inner.text
    assert any("booting" in line for line in lines)
    assert any("waiting for process" in line for line in lines)
    assert any("template made in" in line for line in lines)
    assert len(lines) < 12, lines
    assert "4 passed" in inner.text
    assert len(list((inner.cache / "templates").glob("[!.]*"))) == 1


def test_what_takes_long_is_not_in_the_captured_output(inner_without_templates: Any) -> None:
    inner = inner_without_templates
    inner.write(
        """
def test_it(hil, capfd):
    print("mine")
    assert capfd.readouterr().out == "mine\\n"
    assert 1 == 2
        """
    )
    assert inner.run(QEMU, "--hil-accel=tcg") == 1
    assert "hil: qemu: booting" in inner.text
    assert "Captured stdout setup" not in inner.text


def test_many_tests_leave_no_descriptor(inner: Any) -> None:
    inner.write(
        """
import os, pytest

@pytest.mark.parametrize("n", range(40))
def test_it(hil, n, record_property):
    hil.run("true")
    counts.append(len(os.listdir("/proc/self/fd")))

counts = []

def test_counts():
    assert max(counts[5:]) <= min(counts[5:]) + 30, counts
    assert counts[-1] <= counts[5] + 6, counts
        """
    )
    assert inner.run(QEMU) == 0, inner.text
    run = json.loads((inner.directory / ".hil" / "latest" / "run.json").read_text())
    assert run["status"] == "finished"
    assert inner.left() == []
