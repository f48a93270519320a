"""What goes around every power driver: patience, retries, verification."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from pytest_hil.board.power.switch import PowerError, Switch, open_switch
from pytest_hil.config.driver import section
from pytest_hil.errors import ConfigError


def command(root: Path, **more: object) -> object:
    state = root / "state"
    return {
        "driver": "command",
        "on": f"echo on >> {root}/log; echo 1 > {state}",
        "off": f"echo off >> {root}/log; echo 0 > {state}",
        "read": f"test $(cat {state}) = 1",
        "off_seconds": 0.2,
        **more,
    }


def switch(root: Path, **more: object) -> Switch:
    found = section(
        command(root, **more), source="boards.toml", where="[target.b.power]", base=root
    )
    return open_switch(found, name="b")


def test_a_cycle(tmp_path: Path) -> None:
    made = switch(tmp_path)
    began = time.monotonic()
    made.cycle()
    assert time.monotonic() - began >= 0.2
    assert (tmp_path / "log").read_text() == "off\non\n"
    assert made.read() is True
    began = time.monotonic()
    made.on()  # it is on: nothing to wait for
    assert time.monotonic() - began < 0.2
    made.close()


def test_what_fails_once_is_repeated(tmp_path: Path) -> None:
    once = f"test -e {tmp_path}/second || {{ touch {tmp_path}/second; exit 1; }}; "
    made = switch(tmp_path, on=f"{once}echo 1 > {tmp_path}/state")
    made.on()
    assert made.read() is True


def test_what_does_not_obey(tmp_path: Path) -> None:
    made = switch(
        tmp_path, on=f"echo 0 > {tmp_path}/state; echo tried >> {tmp_path}/log", retries=1
    )
    with pytest.raises(PowerError, match=r"power switch of b was told on and says off"):
        made.on()
    assert (tmp_path / "log").read_text() == "tried\ntried\n"


def test_what_is_not_verified(tmp_path: Path) -> None:
    switch(tmp_path, on=f"echo 0 > {tmp_path}/state", verify=False).on()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"driver": "comand"}, "did you mean 'command'"),
        ({"off_secs": 1}, "did you mean 'off_seconds'"),
        ({"retries": 99}, "retries: 99 is out of range\n  allowed: 0 to 10"),
        ({"on": 5}, "[target.b.power] on: found 5"),
    ],
)
def test_wrong_tables(tmp_path: Path, more: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        switch(tmp_path, **more)
    assert said in str(caught.value)


def test_what_is_missing(tmp_path: Path) -> None:
    found = section({"driver": "command"}, source="boards.toml", where="[x]", base=tmp_path)
    with pytest.raises(ConfigError, match="on: missing"):
        open_switch(found, name="b")
