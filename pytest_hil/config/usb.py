"""``usb`` of a board: how it reaches the USB devices that this host has for it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.config import values
from pytest_hil.config.described import array_of, described
from pytest_hil.config.driver import checks_of, count, key
from pytest_hil.config.tables import Problems, read_keys
from pytest_hil.config.values import BadValue, shown, wrong_kind

_LOOPBACK = ("127.0.0.0/8", "::1")


@described(type="string")
def _address(value: object) -> str:
    text = values.text(value)
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise BadValue(f"{shown(text)} is no IP address", 'write "192.168.1.10"') from None


@array_of(type="string")
def _allow(value: object) -> tuple[str, ...]:
    def check(one: object) -> str:
        text = values.text(one)
        try:
            if text != "*":
                ipaddress.ip_network(text, strict=False)
            return text
        except ValueError:
            raise BadValue(
                f"{shown(text)} is no address and no network",
                'write "192.168.1.20", "192.168.1.0/24", or "*" for everybody',
            ) from None

    return values.array(value, check, "an array of addresses and networks")


@dataclass(frozen=True, slots=True)
class BoardUsb:
    """Keys of a board's table ``usb``. ``listen`` and ``allow`` are filled in."""

    address: str = key(_address, help="this host's IP address as the board reaches it")
    listen: str = key(
        _address, default="", help="the address to listen on, if it is another one than that"
    )
    port: int = key(
        count(0, 65535),
        default=0,
        help="the TCP port to listen on; 0: one that is free, another one each time",
    )
    allow: tuple[str, ...] = key(
        _allow,
        default=(),
        help="who may come: the board's address or network; needed unless listen is loopback",
    )


def read(value: object, base: Path, *, prefix: str, problems: Problems) -> BoardUsb | None:
    """The table; None when something in it is wrong, which is then among the problems.

    Raises BadValue for what is no table.
    """
    if not isinstance(value, Mapping):
        raise wrong_kind(value, 'a table {address = "…", allow = ["…"]}')
    before = len(problems)
    found: dict[str, Any] = read_keys(
        value, checks_of(BoardUsb), base=base, prefix=prefix, problems=problems
    )
    if "address" not in value:
        problems.add(
            f"{prefix}address",
            "missing",
            'write address = "192.168.1.10": this host, as the board reaches it',
        )
    if len(problems) > before:
        return None
    found.setdefault("listen", found["address"])
    if ipaddress.ip_address(found["address"]).is_unspecified:
        problems.add(
            f"{prefix}address",
            f"{shown(found['address'])} is no address that a board can reach",
            'write this host\'s own address there, and listen = "0.0.0.0"',
        )
    elif not found.get("allow") and ipaddress.ip_address(found["listen"]).is_loopback:
        found["allow"] = _LOOPBACK
    elif not found.get("allow"):
        problems.add(
            f"{prefix}allow",
            f"missing: on {found['listen']} everybody could use the devices, USB/IP has no "
            "password",
            'name the board: allow = ["192.168.1.20"], or its network: ["192.168.1.0/24"]',
        )
    return BoardUsb(**found) if len(problems) == before else None
