"""What is decided about places without asking anybody."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pytest_hil.board.check import check
from pytest_hil.config import load
from pytest_hil.config.board import BoardTarget
from pytest_hil.errors import ConfigError, HilError
from pytest_hil.lab.labgrid_places import Match, Place, Reserved, Resource, filters, find
from pytest_hil.lab.labgrid_reach import reach


def tagged(name: str, **tags: str) -> Place:
    return Place(name, tags=tags)


PI1 = tagged("pi1", board="pi", bench="left")
PI2 = tagged("pi2", board="pi", bench="right")
PI3 = tagged("pi3", board="pi", bench="right")
IMX = tagged("imx", board="imx", bench="right")
A, B = tagged("a"), tagged("b")


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([PI1, PI2, PI3], [{"board": "pi"}]),
        ([PI2, PI3], [{"board": "pi", "bench": "right"}]),
        ([PI2, IMX], [{"name": "pi2"}, {"name": "imx"}]),  # pi3 is on the right, too
        ([PI1, PI2], [{"name": "pi1"}, {"name": "pi2"}]),
        ([PI1], [{"name": "pi1"}]),
        ([A, B], [{"name": "a"}, {"name": "b"}]),
    ],
)
def test_what_is_reserved_fits_those_alone(
    wanted: list[Place], found: list[dict[str, str]]
) -> None:
    every = [PI1, PI2, PI3, IMX, A, B]
    assert filters(wanted, every) == found
    reserved = [Reserved("me", "T", 0, 0.0, one) for one in found]
    assert [place for place in every if any(one.wants(place) for one in reserved)] == wanted


def test_a_place_is_found_by_its_alias() -> None:
    places = {"a": Place("a", aliases=frozenset({"old"})), "old2": Place("old2")}
    assert find("old", places) == places["a"]
    assert find("old2", places) == places["old2"]
    assert find("other", places) is None


SERIAL = Resource("exp", "g", "NetworkSerialPort", "NetworkSerialPort", {"host": "h", "port": 4001})
RAW = Resource(
    "exp", "g", "NetworkSerialPort", "second", {"host": "::1", "port": 2, "protocol": "raw"}
)
PLACE = Place("p", matches=(Match("exp", "*", "*", "second", "log"), Match("*", "g", "*")))


def board(tmp_path: Path, tables: str) -> BoardTarget:
    path = tmp_path / "boards.toml"
    path.write_text(f'[target.b]\nbackend = "board"\nplace = "p"\n{tables}\n')
    found = load(path, root=tmp_path).target("b")
    assert isinstance(found, BoardTarget)
    check(found)
    return found


def test_a_serial_port_becomes_a_console(tmp_path: Path) -> None:
    target = board(tmp_path, 'console = {driver = "labgrid", patience = 3}')
    found = reach(target, PLACE, [SERIAL])
    assert found.console.driver == "serial"
    assert found.console.written == {
        "port": "rfc2217://h:4001",
        "baudrate": 115200,
        "patience": 3,
    }
    assert found.console.where == "[target.b.console]"
    check(found)
    assert dataclasses.replace(found, console=target.console) == target


def test_one_of_several_is_chosen_by_its_name_at_the_place(tmp_path: Path) -> None:
    chosen = board(tmp_path, 'console = {driver = "labgrid", resource = "log"}')
    found = reach(chosen, PLACE, [SERIAL, RAW])
    assert (found.console.driver, found.console.written) == ("tcp", {"address": "[::1]:2"})
    check(found)
    with pytest.raises(ConfigError, match=r"several: NetworkSerialPort, log\n.*resource = "):
        reach(board(tmp_path, 'console = "labgrid"'), PLACE, [SERIAL, RAW])
    with pytest.raises(ConfigError, match=r"no NetworkSerialPort 'lgo'\n  did you mean 'log'"):
        reach(
            board(tmp_path, 'console = {driver = "labgrid", resource = "lgo"}'),
            PLACE,
            [SERIAL, RAW],
        )


POWER: list[tuple[str, dict[str, object], str]] = [
    ("shelly_gen1", {"host": "http://10.0.0.1", "index": 2}, "shelly"),
    ("shelly_gen2", {"host": "http://10.0.0.1", "index": "0"}, "shelly"),
    ("rest", {"host": "http://h/relay/{index}/value", "index": 3}, "http"),
    ("simplerest", {"host": "http://h/relay/{index}/{value}", "index": 3}, "http"),
    ("apc", {"host": "pdu", "index": 4}, "snmp"),
    ("raritan", {"host": "pdu", "index": 4}, "snmp"),
    ("eaton", {"host": "pdu", "index": 4}, "snmp"),
]


@pytest.mark.parametrize(("model", "params", "driver"), POWER)
def test_a_power_port_becomes_a_driver(
    tmp_path: Path, model: str, params: dict[str, object], driver: str
) -> None:
    target = board(
        tmp_path, 'console = {driver = "tcp", address = "h:1"}\npower = {driver = "labgrid"}'
    )
    port = Resource("exp", "g", "NetworkPowerPort", "n", {"model": model, **params})
    found = reach(target, PLACE, [port])
    assert found.power is not None
    assert found.power.driver == driver
    assert found.console == target.console
    check(found)


def test_a_pdudaemon_port(tmp_path: Path) -> None:
    target = board(tmp_path, 'console = {driver = "tcp", address = "h:1"}\npower = "labgrid"')
    port = Resource("exp", "g", "PDUDaemonPort", "n", {"host": "pdus", "pdu": "apc1", "index": 3})
    found = reach(target, PLACE, [port])
    assert found.power is not None
    assert found.power.written == {"url": "pdus:16421", "hostname": "apc1", "port": "3"}
    check(found)


@pytest.mark.parametrize(
    ("resource", "said"),
    [
        (None, "the place p has no NetworkSerialPort; it has nothing"),
        (dataclasses.replace(SERIAL, params={"host": "h", "port": None}), "where it listens"),
        (dataclasses.replace(SERIAL, extra={"proxy_required": True}), "through SSH"),
        (
            Resource("exp", "g", "NetworkPowerPort", "n", {"model": "gude", "host": "h"}),
            "the place p has no NetworkSerialPort; it has exp/g/NetworkPowerPort/n",
        ),
    ],
)
def test_what_cannot_be_reached_is_said(
    tmp_path: Path, resource: Resource | None, said: str
) -> None:
    target = board(tmp_path, 'console = {driver = "labgrid"}')
    with pytest.raises(HilError, match=said):
        reach(target, PLACE, [] if resource is None else [resource])


def test_a_model_without_a_driver_is_named(tmp_path: Path) -> None:
    target = board(tmp_path, 'console = {driver = "tcp", address = "h:1"}\npower = "labgrid"')
    port = Resource("exp", "g", "NetworkPowerPort", "n", {"model": "gude", "host": "h"})
    with pytest.raises(ConfigError, match=r"\[target\.b\.power\].*'gude', and there is no driver"):
        reach(target, PLACE, [port])


def test_the_table_lab(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text('[lab]\nlabgrid = "lab.example:20408"\ndirectory = "shared"\n')
    found = load(path, root=tmp_path).lab
    assert (found.labgrid, found.directory) == ("lab.example:20408", tmp_path / "shared")
    path.write_text('[lab]\nlabgrid = "lab.example"\ndir = "x"\n')
    with pytest.raises(ConfigError) as caught:
        load(path, root=tmp_path)
    assert "[lab] labgrid: 'lab.example' is no address" in str(caught.value)
    assert "[lab] dir: unknown key" in str(caught.value)
    path.write_text('lab = "here"\n')
    with pytest.raises(ConfigError, match=r"lab: .*a table \[lab\]"):
        load(path, root=tmp_path)
