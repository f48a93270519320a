"""What all boards of a rig are: a relay's contact, a serial line, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from pytest_hil.errors import ConfigError, nearest
from pytest_hil.rig.line import Line
from pytest_hil.rig.outside import Outside, Rfc2217Outside, TcpOutside, UnixOutside
from pytest_hil.rig.record import Record
from pytest_hil.rig.stream import in_loop
from pytest_hil.rig.tty import TtyOutside
from pytest_hil.usbip.loop import LoopThread

Serial = Literal["tcp", "pty", "unix", "rfc2217"]

PASSWORD = "hil"
"""Of root, on every board."""
PASSWORD_VARIABLE = "HIL_RIG_PASSWORD"
"""Where boards.toml says that it is."""

LOGIN: dict[str, object] = {
    "driver": "login",
    "user": "root",
    "password": {"env": PASSWORD_VARIABLE},
}
"""The last boot stage of every board."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a board is: its number from 1 on (its relay's), its name, a directory of its own."""

    number: int
    name: str
    directory: Path
    serial: Serial
    thread: LoopThread


class Fault:
    """The kinds of faults, and what each takes (a number each) unless it is told otherwise.

    ``adapter-vanishes``: the serial adapter is gone for ``seconds``. ``garbage``: ``count`` bytes
    that nobody has sent. ``lost-bytes``: each byte of the board is lost with the probability
    ``rate``. ``stuck-relay``: the board's power stays as it is; with ``lies`` 1 the switch says
    that it did as it was told. ``boot-loop``: it resets ``seconds`` after each power-on.
    ``brown-out``: it resets once, ``seconds`` from now. ``dead``: it is silent for ever.
    ``none``: all of these are over.
    """

    KINDS: ClassVar[Mapping[str, Mapping[str, float]]] = {
        "adapter-vanishes": {"seconds": 2.0},
        "garbage": {"count": 64, "seed": 1},
        "lost-bytes": {"rate": 0.02, "seed": 1},
        "stuck-relay": {"lies": 0},
        "boot-loop": {"seconds": 2.0},
        "brown-out": {"seconds": 0.0},
        "dead": {},
        "none": {},
    }

    @classmethod
    def checked(cls, kind: str, options: Mapping[str, float]) -> dict[str, float]:
        """The options with what was not given. Raises ConfigError."""
        known = cls.KINDS.get(kind)
        if known is None:
            raise ConfigError("fault", f"there is no kind {kind!r}", mend=nearest(kind, cls.KINDS))
        for name, value in options.items():
            if name not in known:
                raise ConfigError(f"fault {kind}", f"takes no {name}", mend=nearest(name, known))
            if not 0 <= value <= (1 if name in ("rate", "lies") else 1e6):
                raise ConfigError(f"fault {kind}", f"{name}={value:g} is out of range")
        return {**known, **options}


class RigBoard:
    """A board: its power is switched by :meth:`power`, its faults are set by :meth:`fault`.

    The subclasses start and end what it runs on. Any thread may call.
    """

    kind: ClassVar[str]
    arch: str
    features: tuple[str, ...] = ()
    boot: tuple[dict[str, object], ...] = ()

    def __init__(self, place: Place) -> None:
        self.number = place.number
        self.name = place.name
        self.directory = place.directory
        self.record = Record(place.directory / "events.jsonl")
        self.line = Line(place.thread, self.record)
        self.outside = _outside(place, self.line)
        self.line.outside = self.outside
        self._lock = threading.RLock()
        self._relay = False
        self._contact = False
        self._boots = 0
        self._stuck = self._lies = self._dead = False
        self._loop_seconds = 0.0
        self._powers_adapter = False
        self._timers: set[threading.Timer] = set()
        self._closed = False

    def open(self) -> None:
        """Its serial line can be connected to from now on."""
        in_loop(self.line.thread, self.outside.appear)

    def power_adapter(self) -> None:
        """Its serial adapter takes its power from it: without power there is none."""
        with self._lock:
            self._powers_adapter = True
            self.line.plug(self._contact)

    # --- what the kinds differ in; called with the lock held ---

    def _start(self) -> None:
        """Power on: start what it runs on, with its serial port at ``self.line``."""
        raise NotImplementedError

    def _stop(self) -> None:
        """Power off, at once. May be called when it does not run."""
        raise NotImplementedError

    # --- power ---

    @property
    def relay(self) -> bool:
        """What the power switch says."""
        return self._relay

    @property
    def powered(self) -> bool:
        """Whether it has power, whatever the switch says."""
        return self._contact

    def power(self, on: bool) -> None:
        """Its relay is switched. When this returns, it has started, or says nothing any more."""
        with self._lock:
            if self._stuck:
                self._relay = on if self._lies else self._contact
                return
            self._relay = on
            if on == self._contact or self._closed:
                return
            self._contact = on
            self.line.look()
            self.record.add("on" if on else "off")
            if on:
                if self._powers_adapter:
                    self.line.plug(True)
                self._go()
            else:
                self._halt()
                if self._powers_adapter:
                    self.line.plug(False)

    def reset(self) -> None:
        """It begins anew, if it has power."""
        with self._lock:
            if self._contact and not self._closed:
                self.line.look()
                self.record.add("reset")
                self._halt()
                self._go()

    def _go(self) -> None:
        self._boots += 1
        if self._dead:
            return
        self._start()
        if self._loop_seconds:
            boot = self._boots
            self._later(self._loop_seconds, lambda: self._reset_if(boot))

    def _halt(self) -> None:
        # First its words, so that nothing of them comes when its end takes a while.
        self.line.detach()
        self._stop()

    def _reset_if(self, boot: int) -> None:
        """Reset it if it was neither switched off nor reset meanwhile."""
        with self._lock:
            if self._boots == boot and self._loop_seconds:
                self.reset()

    def _later(self, seconds: float, do: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            do()

        timer = threading.Timer(seconds, run)
        timer.daemon = True
        self._timers.add(timer)
        timer.start()

    # --- faults ---

    def fault(self, kind: str, **options: float) -> None:
        """Let something go wrong, now or from now on; see :class:`Fault`. Raises ConfigError."""
        own = Fault.checked(kind, options)
        detail = " ".join([kind, *(f"{name}={value:g}" for name, value in own.items())])
        self.record.add("fault", detail=detail)
        with self._lock:
            match kind:
                case "adapter-vanishes":
                    self.line.vanish(own["seconds"])
                case "garbage":
                    self.line.garbage(int(own["count"]), seed=int(own["seed"]))
                case "lost-bytes":
                    self.line.lose(own["rate"], seed=int(own["seed"]))
                case "stuck-relay":
                    self._stuck, self._lies = True, bool(own["lies"])
                case "boot-loop":
                    self._begin_loop(own["seconds"])
                case "brown-out" if own["seconds"]:
                    self._later(own["seconds"], self.reset)
                case "brown-out":
                    self.reset()
                case "dead":
                    self._dead = True
                    self._halt()
                case _:
                    self._mend()

    def _begin_loop(self, seconds: float) -> None:
        self._loop_seconds = seconds
        if self._contact and seconds:
            boot = self._boots
            self._later(seconds, lambda: self._reset_if(boot))

    def _mend(self) -> None:
        """No fault any more. What was dead lives, the contact does what the relay says."""
        self.line.lose(0.0, seed=0)
        if self._contact or not self._powers_adapter:
            self.line.plug(True)
        self._loop_seconds = 0.0
        was_dead, self._dead = self._dead, False
        was_stuck, self._stuck = self._stuck, False
        if was_dead and self._contact:
            self._go()
        if was_stuck:
            self.power(self._relay)

    # --- the end ---

    def close(self) -> None:
        """Nothing of it is left but its directory. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for timer in list(self._timers):
                timer.cancel()
            self._contact = self._relay = False
            with contextlib.ExitStack() as everything:
                everything.callback(self.record.close)
                everything.callback(self.line.close)
                everything.callback(self._halt)


def _outside(place: Place, line: Line) -> Outside:
    match place.serial:
        case "tcp":
            return TcpOutside(line)
        case "unix":
            return UnixOutside(line, place.directory / "console.sock")
        case "pty":
            return TtyOutside(line, place.directory / "console.tty")
        case "rfc2217":
            return Rfc2217Outside(line)
    raise ConfigError(
        "the rig's serial",
        f"there is no serial line {place.serial!r}",
        mend=nearest(place.serial, get_args(Serial)),
    )
