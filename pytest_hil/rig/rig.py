"""A rig: boards, their power switches, and the boards.toml that describes them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from pytest_hil.errors import ConfigError, NoRoom, nearest
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu import runtime
from pytest_hil.rig.board import PASSWORD, PASSWORD_VARIABLE, Place, RigBoard, Serial
from pytest_hil.rig.light import LightBoard
from pytest_hil.rig.switchboard import Switchboard
from pytest_hil.usbip.loop import LoopThread

KINDS = ("light", "arm64")
Power = Literal["tasmota", "snmp", "hub"]
MOST = 64

# Seconds off in a power cycle: no capacitor has to lose its charge here.
_OFF_SECONDS = 0.05


class _Outlets(Protocol):
    """A power switch of one kind, with an outlet for each board that has it."""

    def table(self, board: RigBoard) -> dict[str, object]:
        """What switches this board, for boards.toml."""

    def close(self) -> None:
        """Nobody can switch any more."""


class Rig:
    """Boards that are switched off, from when it is made until it is closed. A context manager.

    ``kinds``, ``serial`` and ``power`` are taken in turn: ``boards=8, kinds=("light", "arm64")``
    makes four of each. Whatever their power is, the switchboard switches them too. ``directory`` is
    where boards.toml and the boards' records go (it stays then); without one a temporary directory,
    which goes with the rig. Raises ConfigError, InfrastructureError without what a power switch
    needs, and for arm64 boards what their disk needs (ToolMissing, ImageError).
    """

    def __init__(
        self,
        boards: int = 1,
        kinds: Sequence[str] = ("light",),
        *,
        serial: Serial | Sequence[Serial] = "tcp",
        power: Power | Sequence[Power] = "tasmota",
        directory: Path | None = None,
        progress: Progress = silent,
    ) -> None:
        serials = [serial] if isinstance(serial, str) else list(serial)
        powers = [power] if isinstance(power, str) else list(power)
        _check(boards, kinds, serials, powers)
        with contextlib.ExitStack() as made:
            if directory is None:
                self.directory = runtime.directory("rig")
                made.callback(runtime.remove, self.directory)
            else:
                self.directory = directory.absolute()
                _make(self.directory)
            thread = LoopThread("hil-rig")
            made.callback(thread.close)
            self.boards: tuple[RigBoard, ...] = ()
            for number in range(1, boards + 1):
                place = Place(
                    number=number,
                    name=f"rig{number}",
                    directory=self.directory / f"rig{number}",
                    serial=serials[(number - 1) % len(serials)],
                    thread=thread,
                )
                _make(place.directory)
                board = _board(kinds[(number - 1) % len(kinds)], place, progress)
                made.callback(board.close)
                board.open()
                self.boards += (board,)
            self.switchboard = Switchboard(self.boards)
            made.callback(self.switchboard.close)
            self._powers = [powers[(board.number - 1) % len(powers)] for board in self.boards]
            self._outlets = {each: self._switch(each, made) for each in set(self._powers)}
            self.boards_toml = self.directory / "boards.toml"
            self.boards_toml.write_text(self._toml())
            made.callback(self.boards_toml.unlink, missing_ok=True)
            self._everything = made.pop_all()

    @property
    def environment(self) -> Mapping[str, str]:
        """What pytest needs in its environment to log in."""
        return {PASSWORD_VARIABLE: PASSWORD}

    def board(self, which: str | int) -> RigBoard:
        """By its name, or its number from 1 on. Raises ConfigError."""
        return self.switchboard.board(str(which))

    def _switch(self, power: Power, made: contextlib.ExitStack) -> _Outlets:
        """What switches the boards that have this kind of power."""
        if power == "tasmota":
            return self.switchboard
        outlets: _Outlets
        if power == "snmp":
            from pytest_hil.rig.pdu_agent import SnmpPower

            outlets = SnmpPower(self.boards)
        else:
            from pytest_hil.rig.usb_hub import HubPower

            outlets = HubPower()
        made.callback(outlets.close)
        return outlets

    def _toml(self) -> str:
        pairs = zip(self.boards, self._powers, strict=True)
        return "\n".join(_table(board, self._outlets[power].table(board)) for board, power in pairs)

    def close(self) -> None:
        """Kill and remove everything. May be called twice."""
        self._everything.close()

    def __enter__(self) -> Rig:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _check(
    boards: int, kinds: Sequence[str], serials: Sequence[str], powers: Sequence[str]
) -> None:
    if not 1 <= boards <= MOST:
        raise ConfigError("the rig's boards", f"{boards} of them", mend=f"1 to {MOST}")
    for what, given, known in (
        ("kinds", kinds, KINDS),
        ("serial", serials, get_args(Serial)),
        ("power", powers, get_args(Power)),
    ):
        if not given:
            raise ConfigError(f"the rig's {what}", "none is given", mend=f"known: {known}")
        for one in given:
            if one not in known:
                raise ConfigError(f"the rig's {what}", f"no {one!r}", mend=nearest(one, known))


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoRoom(
            f"the rig's directory {directory} cannot be made: {error.strerror}",
            mend="name another directory",
        ) from error


def _board(kind: str, place: Place, progress: Progress) -> RigBoard:
    if kind == "light":
        return LightBoard(place)
    from pytest_hil.rig.arm64 import EmulatedBoard

    return EmulatedBoard(place, progress=progress)


def _table(board: RigBoard, power: dict[str, object]) -> str:
    """Its ``[target.NAME]``."""
    tags = ["rig", board.kind]
    entries = {
        "backend": "board",
        "arch": board.arch,
        "features": list(board.features),
        "tags": tags,
        "console": board.outside.console,
        "power": {**power, "off_seconds": _OFF_SECONDS},
        "boot": list(board.boot),
        "shell": {"driver": "serial"},
    }
    lines = [f"{name} = {_toml_value(value)}" for name, value in entries.items()]
    return "\n".join([f"[target.{board.name}]", *lines, ""])


def _toml_value(value: object) -> str:
    """TOML of a value: its strings and numbers are written as JSON's."""
    if isinstance(value, dict):
        inner = ", ".join(f"{name} = {_toml_value(item)}" for name, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return json.dumps(value, ensure_ascii=False)
