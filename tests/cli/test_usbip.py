"""``pytest-hil usbip``: a server by hand, and what it says of servers."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pytest_hil.cli.main import main
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.importer import Importer, list_devices
from pytest_hil.usbip.virtual.hid import Keyboard
from pytest_hil.usbip.virtual.vendor import Loopback

if TYPE_CHECKING:
    from tests.cli.conftest import Cli

MINE = """
from pytest_hil.usbip.virtual.vendor import Loopback

class Mine(Loopback):
    product = "Mine"

def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture
def exporter() -> Iterator[Exporter]:
    with Exporter() as found:
        yield found


def server(exporter: Exporter) -> str:
    return "{}:{}".format(*exporter.address)


def test_list(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usbip", "list", server(exporter)]) == 0
    assert "exports nothing" in capsys.readouterr().out
    exporter.plug(Keyboard())
    assert main(["usbip", "list", server(exporter)]) == 0
    assert capsys.readouterr().out.split() == ["1-1", "1209:0002", "high", "03/01/01"]
    assert main(["usbip", "list", server(exporter), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["busid"], row["id"], row["path"]) == ("1-1", "1209:0002", "/pytest-hil/1-1")


def test_check(exporter: Exporter, capsys: pytest.CaptureFixture[str]) -> None:
    exporter.plug(Keyboard())
    exporter.plug(Loopback(), busid="2-1")
    words = ["usbip", "check", server(exporter), "--timeout", "20"]
    assert main([*words, "--busid", "2-1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["counts"] == {"pass": len(found["checks"]), "fail": 0, "not applicable": 0}
    assert len(found["checks"]) >= 40
    assert {"id", "title", "source", "expected", "seen"} <= set(found["checks"][0])
    assert main([*words, "--only", "data-bulk*"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^n/a +data-bulk-zero .*\n +because +1209:0002 does not", out, re.M)
    assert "0 pass, 0 fail" in out


def test_check_of_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    with Exporter() as gone:
        words = ["usbip", "check", server(gone), "--only", "op-devlist-*"]
    assert main(words) == 1
    out = capsys.readouterr().out
    assert re.search(r"^FAIL +op-devlist-version .*\n +expected a connection\n +seen +Con", out)
    assert "Documentation/usb/usbip_protocol.rst, Protocol Version" in out
    assert main(["usbip", "list", server(gone)]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["check", "localhost", "--only", "urb-devise"], "did you mean 'urb-device'"),
        (["check", "localhost:0"], "is no address"),
        (["list", "a:b:c"], "is no address"),
        (["export", "keybord"], "did you mean 'keyboard'"),
        (["export", "no_such_module_of_mine:Device"], "ModuleNotFoundError"),
        (["export", "pathlib:PurePath"], "is no device: it has no describe"),
        (["export", "stick=/no/such/file"], "/no/such/file"),
        (["export", "loopback", "--listen", "0.0.0.0:0"], "USB/IP has no password"),
    ],
)
def test_wrongly_asked(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usbip", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_device_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_device_for_tests.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["usbip", "export", "broken_device_for_tests:broken"]) == 2
    assert "RuntimeError('no such luck')" in capsys.readouterr().err


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_export(cli: Cli, end: signal.Signals) -> None:
    (cli.cwd / "mine.py").write_text(MINE)
    (cli.cwd / "disk.img").write_bytes(bytes(4096))
    devices = ["loopback", "keyboard", "mouse", "serial", "stick=disk.img", "mine:Mine"]
    words = ["usbip", "export", *devices, "--listen", "127.0.0.1:0"]
    process = cli.start(words, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline().decode() for _ in range(len(devices) + 1)]
        assert [line.split() for line in lines[:-1]] == [
            [f"1-{number}", word] for number, word in enumerate(devices, 1)
        ]
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+); Ctrl-C ends it\n", lines[-1])
        assert found
        address = ("127.0.0.1", int(found[1]))
        assert [one.product_id for one in list_devices(address)][:2] == [1, 2]
        _speak_to_the_echo(address)
        process.send_signal(end)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _speak_to_the_echo(address: tuple[str, int]) -> None:
    with Importer(address, "1-4") as serial:
        serial.control(0, 9, 1)
        serial.control(0x21, 0x22, 3)  # SET_CONTROL_LINE_STATE: DTR and RTS
        serial.write(2, b"echo")
        got = b""
        while len(got) < 4:
            got += bytes(serial.read(2, 64, timeout=20).data)
    assert got == b"echo"
