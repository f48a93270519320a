"""The Target contract on a physical board."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pytest_hil.board.station import Station
from pytest_hil.crash_watch import CrashWatch
from pytest_hil.errors import HilError, InfrastructureError, Unsupported
from pytest_hil.target import Command, Completed, Opened, Snapshot

if TYPE_CHECKING:
    from pytest_hil.attach.usb import Usb
    from pytest_hil.board.boot.bootloader import Commands
    from pytest_hil.console.session import Console
    from pytest_hil.crash_watch import RulesOf

Events = Callable[..., None]


class Board(Opened):
    """One test's use of a board. Closing it leaves the board as it is: ``between`` says what
    happens to it before the next one.

    ``on_error`` is told of what broke at it while a test used it.
    """

    def __init__(
        self,
        station: Station,
        *,
        on_error: Callable[[InfrastructureError], object] = bool,
        on_close: Callable[[], object] = bool,
    ) -> None:
        self._station = station
        self._on_error = on_error
        self._on_close = on_close
        self._closed = False
        self.name = station.name
        self.arch = station.target.arch
        self.features = station.target.all_features
        self._power = BoardPower(station, self._leaving)
        self._usb: Usb | None = None
        self._usb_lock = threading.Lock()
        self._record_to: Path | None = None
        station.on_down = self._down

    # --- for the bench and the plugin ---

    @property
    def origin_text(self) -> str:
        return f"board at its {self._station.state or 'unknown state'}"

    @property
    def closed(self) -> bool:
        return self._closed

    def died(self) -> HilError | None:
        return None

    def broke(self, error: InfrastructureError) -> None:
        self._on_error(error)

    def record(
        self,
        directory: Path,
        *,
        events: Events | None = None,
        qmp: Callable[[dict[str, Any]], None] | None = None,  # noqa: ARG002 - machines have it
    ) -> None:
        if events is not None:
            self._station.events = events
        self.console.record(directory)
        self._record_to = directory
        if self._usb is not None:
            self._usb.record(directory)

    def tell(self, kind: str, **facts: object) -> None:
        """Something happened to what is connected to it."""
        self._station.events(kind, **facts)

    # --- the contract ---

    @property
    def console(self) -> Console:
        return self._station.console

    @property
    def power(self) -> BoardPower:
        return self._power

    def watch_crashes(self, rules: RulesOf | None) -> CrashWatch:
        # One for all tests that have the board: between two of them somebody watches too.
        self._crash_watch = self._station.crash_watch
        watch = self._station.crash_watch = super().watch_crashes(rules)
        watch.at_rest, watch.on_gone = self._station.at_rest, self._station.gone
        return watch

    def follow_restart(self) -> None:
        with self._station.blamed():
            self._station.follow_restart()

    @property
    def stage(self) -> str | None:
        """Where it stands in its boot: a stage's name, "off", None when nobody knows."""
        return self._station.state

    def boot(self, stage: str | None = None) -> None:
        """Bring it to a stage, such as "bootloader" or "off"; None: to its shell."""
        self._leaving("reset")
        with self._station.blamed():
            self._station.boot(stage)

    @property
    def bootloader(self) -> Commands:
        """The bootloader's prompt: ``run``, and its variables as ``env``."""
        return self._station.bootloader

    def run(
        self,
        command: Command,
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = 64 * 2**20,
    ) -> Completed:
        with self._followed(env) as env, self._station.blamed():
            return self._station.shell("run a command").run(
                command,
                check=check,
                timeout=timeout,
                input=input,
                env={**dict(self._station.target.env), **(env or {})},
                cwd=cwd,
                max_output=max_output,
            )

    def put(
        self,
        local: str | PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        with self._station.blamed():
            self._station.shell("put a file").put(local, remote, mode=mode, owner=owner)
        self._was_put(local)

    def get(self, remote: str, local: str | PathLike[str]) -> None:
        with self._station.blamed():
            self._station.shell("get a file").get(remote, local)

    def reset(self) -> None:
        self._leaving("reset")
        with self._station.blamed():
            self._station.reset()

    @property
    def usb(self) -> Usb:
        own = self._station.target.usb
        if own is None:
            raise Unsupported(
                self.name,
                "USB that devices can be attached to: boards.toml does not say how",
                mend=f"where its kernel has vhci_hcd, add to [target.{self.name}] "
                'usb = {address = "this host as the board reaches it", allow = ["the board"]}',
            )
        with self._usb_lock:
            if self._usb is None:
                # Most tests plug nothing in: they need not load it.
                from pytest_hil.attach.usb import Usb
                from pytest_hil.board.usb import BoardLink

                self._usb = Usb(BoardLink(self, self._station, own))
                if self._record_to is not None:
                    self._usb.record(self._record_to)
                if self._closed:
                    self._usb.close()
            return self._usb

    def _down(self, why: str) -> None:
        if self._usb is not None:
            self._usb.lost(why)

    def snapshot(self, name: str = "") -> Snapshot:  # noqa: ARG002
        raise Unsupported(self.name, "snapshots: it is a board")

    def restore(self, snapshot: Snapshot) -> None:  # noqa: ARG002
        raise Unsupported(self.name, "snapshots: it is a board")

    def fork(self) -> NoReturn:
        raise Unsupported(self.name, "twin: it is a board")

    def forward(self, guest_port: int, protocol: str = "tcp") -> int:
        raise Unsupported(self.name, f"forward to its port {guest_port}/{protocol}: it is a board")

    def close(self) -> None:
        if self._closed:
            return
        if self._usb is not None:
            # The board lives on: what it does not let go of, it loses.
            with contextlib.suppress(HilError):
                self._usb.detach()
            self._usb.close()
        self._leaving("close")
        self._closed = True
        self._station.on_down = bool
        self.console.record(None)
        self._station.events = lambda *_args, **_facts: None
        self._on_close()


class BoardPower:
    """What a :class:`Board` has for its ``power``."""

    def __init__(self, station: Station, leaving: Callable[[str], object]) -> None:
        self._station = station
        self._leaving = leaving

    def on(self) -> None:
        """Switch it on and wait until it is at its last stage; nothing if it is on."""
        with self._station.blamed():
            self._station.ready()

    def off(self) -> None:
        """Take its power away, with no shutdown."""
        self._leaving("power")
        with self._station.blamed():
            self._station.off()

    def cycle(self) -> None:
        """Off, on, ready."""
        self._leaving("power")
        with self._station.blamed():
            self._station.cycle()

    def read(self) -> bool:
        """Whether it is on."""
        with self._station.blamed():
            return self._station.is_on()
