"""PDUDaemon: a server that behaves as its HTTP listener, and the real one where it is installed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil import process
from pytest_hil.board.power.pdudaemon import PduDaemon, PduDaemonOptions
from pytest_hil.board.power.switch import PowerError, Switch, SwitchOptions, open_switch
from pytest_hil.config.driver import Section
from pytest_hil.errors import ConfigError, InfrastructureError
from tests.rig.web_device import Answer, Reply, Request, WebDevice

# Debian's package has it where not everybody's PATH leads.
REAL = shutil.which("pdudaemon", path=f"{os.environ['PATH']}:/usr/sbin")
PATIENT = 20.0


class Daemon:
    """Two PDUs and an alias."""

    def __init__(self) -> None:
        self.jobs: list[tuple[str, str, str]] = []

    def __call__(self, request: Request) -> Answer:
        words = request.path.split("/")
        if words[:3] != ["", "power", "control"] or words[3] not in ("on", "off", "reboot"):
            return Reply("404: Not Found", 404)
        query = request.query
        pdu, port = query.get("hostname"), query.get("port")
        if query.get("alias") == "board7" and not pdu and not port:
            pdu, port = "rack 1", "7"
        if pdu not in ("rack 1", "rack2") or not port:
            return Reply("Invalid request\n", 500)
        self.jobs.append((pdu, port, words[3]))
        return Reply("OK - accepted request\n")


Made = Callable[..., PduDaemon]


@pytest.fixture
def pdu() -> Iterator[Made]:
    made: list[WebDevice] = []

    def make(answer: Callable[[Request], Answer] | Answer, **options: Any) -> PduDaemon:
        made.append(WebDevice(answer if callable(answer) else lambda _: answer))
        return PduDaemon(PduDaemonOptions(made[-1].url, **options))

    yield make
    for one in made:
        one.close()


def test_on_and_off(pdu: Made) -> None:
    daemon = Daemon()
    switch = Switch(
        pdu(daemon, hostname="rack 1", port="3"),
        SwitchOptions(retries=0, off_seconds=0.0),
        name="dut",
    )
    switch.on()
    switch.cycle()
    assert [word for _, _, word in daemon.jobs] == ["on", "off", "on"]
    assert {job[:2] for job in daemon.jobs} == {("rack 1", "3")}
    assert switch.read() is None
    switch.close()
    switch.close()


def test_an_alias(pdu: Made) -> None:
    daemon = Daemon()
    pdu(daemon, alias="board7").off()
    assert daemon.jobs == [("rack 1", "7", "off")]


def test_from_a_table() -> None:
    daemon = Daemon()
    with WebDevice(daemon) as device:
        table = {"url": f"127.0.0.1:{device.port}", "hostname": "rack2", "port": 4}
        section = Section("boards.toml", "[target.dut.power]", "pdudaemon", table)
        open_switch(section, name="dut").on()
    assert daemon.jobs == [("rack2", "4", "on")]


def test_a_pdu_that_it_does_not_know(pdu: Made) -> None:
    with pytest.raises(PowerError, match="did not switch port 3 of 'rack9' on: Invalid") as caught:
        pdu(Daemon(), hostname="rack9", port="3").on()
    assert "pdudaemon.conf" in caught.value.mend
    with pytest.raises(PowerError, match="did not switch alias 'x' off"):
        pdu(Daemon(), alias="x").off()


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Reply("404: Not Found", 404), "404 Not Found"),
        (Reply("wait", 502), "502 Bad Gateway"),
        (b"ack\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 22\r\n\r\nOK - acc", "in the middle of its answer"),
        (b"", "without an answer"),
    ],
)
def test_wrong_answers(pdu: Made, answer: Answer, message: str) -> None:
    with pytest.raises(InfrastructureError, match=message):
        pdu(answer, alias="x").on()


def test_silence(pdu: Made) -> None:
    with pytest.raises(PowerError, match=r"did not answer within 0\.2 s"):
        pdu(None, alias="x", timeout=0.2).on()


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({}, "hostname"),
        ({"hostname": "a"}, "port: missing"),
        ({"port": 1}, "hostname: missing"),
        ({"hostname": "a", "port": 1, "alias": "b"}, "not both"),
        ({"hostname": "a", "port": ""}, "empty"),
        ({"hostname": "a", "port": 1.5}, "number or name"),
    ],
)
def test_wrong_keys(written: dict[str, object], message: str) -> None:
    table = {"url": "http://pdu:16421", **written}
    with pytest.raises(ConfigError, match=message):
        open_switch(Section("boards.toml", "[target.dut.power]", "pdudaemon", table), name="dut")


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="no pdudaemon: apt-get install pdudaemon")
def test_the_real_one(tmp_path: Path) -> None:
    assert REAL is not None
    done = tmp_path / "done"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        "daemon": {"hostname": "127.0.0.1", "port": port, "listener": "http"},
        "pdus": {
            "rack": {
                "driver": "localcmdline",
                "cmd_on": f"echo on %s >>{done}",
                "cmd_off": f"echo off %s >>{done}",
            },
        },
        "aliases": {"board": {"hostname": "rack", "port": 9}},
    }
    configured = tmp_path / "pdudaemon.conf"
    configured.write_text(json.dumps(settings))
    daemon = process.start([REAL, f"--conf={configured}", "--listener=http"])
    try:
        url = f"http://127.0.0.1:{port}"
        until = time.monotonic() + PATIENT
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.05)
        one = PduDaemon(PduDaemonOptions(url, hostname="rack", port="3"))
        one.on()
        one.off()
        PduDaemon(PduDaemonOptions(url, alias="board")).on()
        assert done.read_text().split("\n") == ["on 3", "off 3", "on 9", ""]
        with pytest.raises(PowerError, match="did not switch port 3 of 'rick' on: Invalid request"):
            PduDaemon(PduDaemonOptions(url, hostname="rick", port="3")).on()
        with pytest.raises(PowerError, match="did not switch alias 'bord' on"):
            PduDaemon(PduDaemonOptions(url, alias="bord")).on()
    finally:
        daemon.end()
