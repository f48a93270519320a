"""Which class drives what a table of boards.toml names: ours, or another package's.

Another package adds one by an entry point: group ``pytest_hil.power``, ``pytest_hil.console``
or ``pytest_hil.boot``, named as in boards.toml, for a class as in
:mod:`pytest_hil.board.power.switch` and so on. Nothing is imported before a board needs it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pytest_hil.board import shells
from pytest_hil.config.driver import Section
from pytest_hil.errors import nearest

BUILTIN: Mapping[str, Mapping[str, str]] = {
    "power": {
        "command": "pytest_hil.board.power.command:CommandPower",
        "gpio": "pytest_hil.board.power.gpio:GpioPower",
        "hid-relay": "pytest_hil.board.power.hid_relay:HidRelay",
        "http": "pytest_hil.board.power.http:HttpPower",
        "labgrid": "pytest_hil.board.power.labgrid:LabgridPower",
        "lcus": "pytest_hil.board.power.lcus:LcusRelay",
        "lines": "pytest_hil.board.power.lines:LinesPower",
        "manual": "pytest_hil.board.power.manual:ManualPower",
        "pdudaemon": "pytest_hil.board.power.pdudaemon:PduDaemon",
        "qmp": "pytest_hil.board.power.qmp:QmpPower",
        "shelly": "pytest_hil.board.power.shelly:Shelly",
        "snmp": "pytest_hil.board.power.snmp:SnmpPower",
        "tasmota": "pytest_hil.board.power.tasmota:Tasmota",
        "usb-hub": "pytest_hil.board.power.usb_hub:UsbHub",
    },
    "console": {
        "command": "pytest_hil.board.console.command:CommandConsole",
        "labgrid": "pytest_hil.board.console.labgrid:LabgridConsole",
        "serial": "pytest_hil.board.console.serial:SerialConsole",
        "tcp": "pytest_hil.board.console.tcp:TcpConsole",
        "unix": "pytest_hil.board.console.unix:UnixConsole",
    },
    "boot": {
        "barebox": "pytest_hil.board.boot.barebox:Barebox",
        "login": "pytest_hil.board.boot.login:Login",
        "prompt": "pytest_hil.board.boot.prompt:Prompt",
        "u-boot": "pytest_hil.board.boot.uboot:UBoot",
        "uefi": "pytest_hil.board.boot.uefi:UefiShell",
    },
}


def find(kind: str, section: Section) -> Any:
    """The class that drives a section. Raises ConfigError with the nearest right name."""
    builtin = BUILTIN[kind]
    name = section.driver
    if name in builtin:
        module, _, attribute = builtin[name].partition(":")
        return getattr(importlib.import_module(module), attribute)
    # Only now: each look reads a file of everything that is installed.
    others = _others(kind)
    if name in others:
        return others[name].load()
    raise section.wrong(
        "driver", f"there is no {kind} driver {name!r}", mend=nearest(name, {*builtin, *others})
    )


def options(kind: str, section: Section) -> type[Any]:
    """The keys that a section's driver has for itself. Raises ConfigError."""
    if kind == "shell":
        return shells.options_of(section)
    found: type[Any] = find(kind, section).Options
    return found


def names(kind: str) -> list[str]:
    """All drivers of a kind."""
    if kind == "shell":
        return list(shells.DRIVERS)
    return sorted({*BUILTIN[kind], *_others(kind)})


def is_ours(kind: str, name: str) -> bool:
    """Whether a driver is no other package's."""
    return kind == "shell" or name in BUILTIN[kind]


def _others(kind: str) -> dict[str, EntryPoint]:
    return {one.name: one for one in entry_points(group=f"pytest_hil.{kind}")}
