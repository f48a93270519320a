"""The fixture ``hil_usb`` and the lines of ``--hil-usb-log``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.usbip.events import assert_attached, parse_lines

EXPORTS = """
import socket
from pytest_hil.usbip.virtual.hid import Keyboard

def test_export(hil_usb):
    plugged = hil_usb.export(Keyboard(), busid="3-1")
    with socket.create_connection(hil_usb.address, 10) as importer:
        importer.sendall(bytes.fromhex("0111800500000000"))  # OP_REQ_DEVLIST
        answer = importer.recv(12)
        while len(answer) < 12:
            answer += importer.recv(12 - len(answer))
    assert answer == bytes.fromhex("011100050000000000000001")
    with hil_usb.export(Keyboard()) as second:
        assert [one.busid for one in hil_usb.exporter.devices()] == ["3-1", second.busid]
    assert [one.busid for one in hil_usb.exporter.devices()] == ["3-1"]

def test_nothing_is_left(hil_usb):
    assert hil_usb.exporter.devices() == []

def test_unused(hil_usb):
    pass
"""


def test_devices_without_a_machine(plain: pytest.Pytester) -> None:
    plain.makepyfile(EXPORTS)
    done = plain.runpytest_inprocess("--hil-usb-log=usb.log")
    done.assert_outcomes(passed=3)
    events = list(parse_lines((plain.path / "usb.log").read_text().splitlines()))
    assert [(one.what, one.busid) for one in events] == [
        ("plug", "3-1"),
        ("list", ""),
        ("plug", "1-1"),
        ("unplug", "1-1"),
        ("unplug", "3-1"),
    ]
    # A test that used nothing leaves nothing.
    names = {path.parent.name for path in plain.path.glob(".hil/runs/*/*/meta.json")}
    assert len(names) == 2


def test_lines_on_the_terminal(plain: pytest.Pytester) -> None:
    plain.makepyfile(EXPORTS)
    done = plain.runpytest_inprocess("--hil-usb-log=-", "-k", "export")
    done.stdout.fnmatch_lines(["hil-usb: plug busid=3-1 device=Keyboard", "hil-usb: list *"])


def test_a_log_that_cannot_be_written(plain: pytest.Pytester) -> None:
    done = plain.runpytest_inprocess("--hil-usb-log=nowhere/usb.log")
    assert done.ret == pytest.ExitCode.USAGE_ERROR
    done.stderr.fnmatch_lines(["ERROR: --hil-usb-log: */nowhere/usb.log cannot be written: *"])


def test_a_terminal_that_workers_do_not_have(plain: pytest.Pytester) -> None:
    pytest.importorskip("xdist")
    done = plain.runpytest_inprocess("--hil-usb-log=-", "-n1")
    assert done.ret != pytest.ExitCode.OK


ON_MACHINES = """
from pytest_hil.usbip.virtual.hid import Keyboard

def test_attach(hil, hil_open):
    with hil.usb.attach(Keyboard()), hil_open().usb.attach(Keyboard()):
        pass

def test_attach_again(hil):
    with hil.usb.attach(Keyboard()):
        pass

def test_none(hil):
    pass
"""


@pytest.mark.machine
@pytest.mark.parametrize("scope", ["function", "module"])
def test_every_test_has_its_own_capture(inner: Any, scope: str) -> None:
    inner.write(ON_MACHINES)
    options = ["--hil-target=qemu", "--hil-accel=tcg", f"--hil-scope={scope}"]
    assert inner.run(*options, "--hil-usb-log=usb.log") == 0, inner.text
    (run,) = (inner.directory / ".hil" / "runs").iterdir()
    captures = {
        str(path.relative_to(run)).partition("--")[2]: path.stat().st_size
        for path in run.rglob("usb.pcap")
    }
    assert set(captures) == {
        "test_attach@qemu/usb.pcap",
        "test_attach@qemu/2-qemu/usb.pcap",
        "test_attach_again@qemu/usb.pcap",
    }
    assert min(captures.values()) > 1000
    for test in ("test_attach@qemu", "test_attach_again@qemu"):
        (directory,) = run.glob(f"*--{test}")
        assert "attach" in whats(directory), directory
    (directory,) = run.glob("*--test_none@qemu")
    assert whats(directory) == []
    lines = (inner.directory / "usb.log").read_text().splitlines()
    attached = [one for one in parse_lines(lines) if one.what == "attach"]
    assert len(attached) == 3
    assert assert_attached(attached[:1], vendor_id=0x1209, node="/dev/input/event")


def whats(directory: Path) -> list[str]:
    """What happened to USB devices in a test."""
    rows = map(json.loads, (directory / "events.jsonl").read_text().splitlines())
    return [row["what"] for row in rows if row["kind"] == "usb"]
