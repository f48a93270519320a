"""``usb`` of a board: what it comes to, and what is said of one that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil.config import BoardTarget, load
from pytest_hil.config.usb import BoardUsb
from pytest_hil.errors import ConfigError

BOARD = '[target.pi]\nbackend = "board"\nconsole = {driver = "tcp", address = "lab:4001"}\n'


def board(tmp_path: Path, usb: str, before: str = BOARD) -> BoardTarget:
    path = tmp_path / "boards.toml"
    path.write_text(f"{before}{usb}\n")
    found = load(path, root=tmp_path).targets["pi"]
    assert isinstance(found, BoardTarget)
    return found


@pytest.mark.parametrize(
    ("usb", "found"),
    [
        (
            'address = "10.0.0.1", allow = ["10.0.0.7"]',
            BoardUsb("10.0.0.1", "10.0.0.1", 0, ("10.0.0.7",)),
        ),
        (
            'address = "10.0.0.1", listen = "0.0.0.0", port = 3240, allow = ["10.0.0.7/24", "*"]',
            BoardUsb("10.0.0.1", "0.0.0.0", 3240, ("10.0.0.7/24", "*")),
        ),
        (
            'address = "10.0.2.2", listen = "127.0.0.1"',
            BoardUsb("10.0.2.2", "127.0.0.1", 0, ("127.0.0.0/8", "::1")),
        ),
        (
            'address = "FD00::1", allow = ["fd00::/8"]',
            BoardUsb("fd00::1", "fd00::1", 0, ("fd00::/8",)),
        ),
    ],
)
def test_what_it_comes_to(tmp_path: Path, usb: str, found: BoardUsb) -> None:
    made = board(tmp_path, f"usb = {{{usb}}}")
    assert made.usb == found
    assert "usb" in made.all_features
    assert hash(made)


def test_a_group_says_it_for_all(tmp_path: Path) -> None:
    group = '[group.g]\nusb = {address = "10.0.0.1", allow = ["10.0.0.0/24"]}\n'
    made = board(tmp_path, 'group = "g"', group + BOARD)
    assert made.usb is not None
    assert board(tmp_path, "").usb is None
    assert "usb" not in board(tmp_path, "").all_features


@pytest.mark.parametrize(
    ("usb", "message"),
    [
        (
            'usb = {adress = "10.0.0.1"}',
            "[target.pi.usb] adress: unknown key\n    did you mean 'addr",
        ),
        ('ubs = {address = "10.0.0.1"}', "[target.pi] ubs: unknown key\n  did you mean 'usb'?"),
        ("usb = {}", '[target.pi.usb] address: missing\n  write address = "192.168.1.10"'),
        ("usb = true", "[target.pi] usb: found true (a boolean), wanted a table {address"),
        (
            'usb = {address = "lab.example"}',
            "[target.pi.usb] address: 'lab.example' is no IP address\n  write \"192.168.1.10\"",
        ),
        (
            'usb = {address = "10.0.0.1"}',
            "[target.pi.usb] allow: missing: on 10.0.0.1 everybody could use the devices, USB/IP "
            'has no password\n  name the board: allow = ["192.168.1.20"]',
        ),
        (
            'usb = {address = "10.0.0.1", listen = "0.0.0.0", allow = []}',
            "[target.pi.usb] allow: missing: on 0.0.0.0 everybody",
        ),
        (
            'usb = {address = "0.0.0.0", allow = ["*"]}',
            "[target.pi.usb] address: '0.0.0.0' is no address that a board can reach\n  write this",
        ),
        (
            'usb = {address = "10.0.0.1", allow = ["10.0.0.7", "pi.lab"]}',
            "[target.pi.usb] allow[1]: 'pi.lab' is no address and no network\n  write \"192.",
        ),
        (
            'usb = {address = "10.0.0.1", allow = "10.0.0.7"}',
            "[target.pi.usb] allow: found '10.0.0.7' (a string), wanted an array of addresses",
        ),
        (
            'usb = {address = "10.0.0.1", allow = ["*"], port = 70000}',
            "[target.pi.usb] port: 70000 is out of range\n  allowed: 0 to 65535",
        ),
        (
            'usb = {address = "10.0.0.1", allow = ["*"], listen = "eth0"}',
            "[target.pi.usb] listen: 'eth0' is no IP address",
        ),
    ],
)
def test_what_is_wrong(tmp_path: Path, usb: str, message: str) -> None:
    with pytest.raises(ConfigError) as wrong:
        board(tmp_path, usb)
    assert message in str(wrong.value)
    assert str(wrong.value).startswith(f"{tmp_path}/boards.toml: ")
