"""The bench: configuration and options → opened targets. The only place where the pieces meet.

One bench a process. It makes nothing before it is asked, keeps one factory a kind of machine,
and closing it ends everything that it opened.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from pytest_hil import config
from pytest_hil.config import BoardTarget, Config, PoolTarget, QemuTarget
from pytest_hil.config.expression import BadExpression, choose
from pytest_hil.errors import ConfigError
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.board.board import Board
    from pytest_hil.cache import Cache
    from pytest_hil.lab.health_book import HealthBook
    from pytest_hil.lab.labgrid import LabgridLab
    from pytest_hil.lab.lease import Lab
    from pytest_hil.qemu.accel import Accel, Choice
    from pytest_hil.qemu.factory import Factory
    from pytest_hil.qemu.guest import Guest
    from pytest_hil.qemu.plan import Plan
    from pytest_hil.qemu.room import Room
    from pytest_hil.stations import Stations
    from pytest_hil.target import Opened

AnyTarget = QemuTarget | BoardTarget | PoolTarget


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user chose. ``memory_budget`` in bytes for all machines of the user, None: by host.

    ``boards`` None: boards.toml in ``root``, if it is there. ``kernel`` and ``kernel_modules``
    replace those of every machine. ``cache`` and ``lab`` None: the user's. ``board_wait``: seconds
    to wait for a board that somebody else has; ``purpose`` is what they are told it is for.
    """

    root: Path
    boards: Path | None = None
    accel: Choice = "auto"
    boot_timeout: float = 60.0
    kernel: Path | None = None
    kernel_modules: Path | None = None
    templates: bool = True
    memory_budget: int | None = None
    room_timeout: float = 300.0
    cache: Path | None = None
    lab: Path | None = None
    board_wait: float = 0.0
    purpose: str = "pytest-hil"


class Bench:
    """Opens targets. A context manager; all of it may be used from several threads.

    ``progress`` gets status lines while something takes long, ``say`` what the user should know
    once (why it is slower than it could be, what was left out).
    """

    def __init__(
        self,
        settings: Settings,
        *,
        progress: Progress = silent,
        say: Callable[[str], None] = silent,
    ) -> None:
        self.settings = settings
        self._progress = progress
        self._say = say
        self._said: set[str] = set()
        self._lock = threading.RLock()
        self._config: Config | None = None
        self._cache: Cache | None = None
        self._room: Room | None = None
        self._accels: dict[str, Accel] = {}
        self._factories: dict[QemuTarget, Factory] = {}
        self._opened: list[Guest] = []
        self._stations: Stations | None = None
        self._labgrid: LabgridLab | None = None
        self._closed = False

    # --- what there is ---

    @property
    def config(self) -> Config:
        """All of boards.toml, read when it is first needed. Raises ConfigError."""
        with self._lock:
            if self._config is None:
                self._config = config.load(self.settings.boards, root=self.settings.root)
            return self._config

    @property
    def cache(self) -> Cache:
        with self._lock:
            if self._cache is None:
                from pytest_hil.cache import Cache

                own = self.settings.cache
                self._cache = Cache.default() if own is None else Cache(own)
            return self._cache

    @property
    def room(self) -> Room:
        """The places of machines. The first look removes what killed runs left."""
        with self._lock:
            if self._room is None:
                from pytest_hil.qemu import runtime
                from pytest_hil.qemu.room import Room

                self._room = Room(self.settings.memory_budget)
                self._room.reap()
                runtime.reap()
            return self._room

    @property
    def lab(self) -> Lab | LabgridLab:
        """The boards' leases: of this host, or as ``[lab]`` says of a labgrid coordinator."""
        from pytest_hil.lab.lease import Lab, directory_of

        directory = directory_of(self.settings.lab, self.config.lab.directory)
        if not self.config.lab.labgrid:
            return Lab(directory)
        with self._lock:
            if self._labgrid is None:
                from pytest_hil.lab.labgrid import LabgridLab

                self._labgrid = LabgridLab(
                    self.config.lab.labgrid,
                    places={
                        one.name: one.place or one.name
                        for one in self.config.targets.values()
                        if isinstance(one, BoardTarget)
                    },
                    directory=directory,
                    say=self.say,
                )
            return self._labgrid

    @property
    def health(self) -> HealthBook:
        """What is known of the boards that are ill."""
        from pytest_hil.lab.health import Policy
        from pytest_hil.lab.health_book import HealthBook
        from pytest_hil.lab.lease import directory_of

        own = self.config.lab
        policy = Policy(after=own.quarantine_after)
        return HealthBook(directory_of(self.settings.lab, own.directory), policy=policy)

    def describe(
        self, name: str, *, where: str = "@pytest.mark.hil", **overrides: Any
    ) -> AnyTarget:
        """A target's description with the options' changes, and those that ``where`` asks for.

        Raises ConfigError.
        """
        if (pool := self.pool(name)) is not None:
            return pool
        found = self.config.target(name)
        if isinstance(found, BoardTarget):
            config.refuse_overrides(found, where, overrides)
            return found
        return self.target(name, where=where, **overrides)

    def pool(self, expression: str) -> PoolTarget | None:
        """The boards that an expression of names, tags and features chooses; None for what is a
        target's name, and for what chooses nothing.
        """
        if expression in self.config.targets:
            return None
        boards = [one for one in self.config.targets.values() if isinstance(one, BoardTarget)]
        try:
            found = tuple(one for one in boards if choose(expression, one.words))
        except BadExpression as error:
            raise ConfigError(f"the target {expression!r}", str(error)) from None
        return PoolTarget(expression, found) if found else None

    def target(self, name: str, *, where: str = "@pytest.mark.hil", **overrides: Any) -> QemuTarget:
        """:meth:`describe` for machines. Raises ConfigError, for a board too."""
        found = self.config.machine(name)
        if self.settings.kernel is not None:
            found = config.with_overrides(
                found,
                config=self.config,
                where="--hil-kernel",
                kernel=str(self.settings.kernel),
                kernel_modules=_text(self.settings.kernel_modules),
            )
        if overrides:
            base = self.config.path.parent if self.config.path else self.settings.root
            found = config.with_overrides(
                found, config=self.config, base=base, where=where, **overrides
            )
        return found

    def plan(self, target: QemuTarget) -> Plan:
        """The hardware of a target; its image is built or fetched when that is missing."""
        return self.factory(target).plan

    def accel(self, target: QemuTarget) -> Accel:
        """The accelerator for a target: found out by booting, the first time on a host."""
        from pytest_hil.qemu import accel, emulator, plan

        with self._lock:
            if (known := self._accels.get(target.arch)) is not None:
                return known
            found = accel.choose(
                self.settings.accel,
                emulator.find(target.arch, self.cache),
                self.cache,
                possible=plan.can_accelerate(target),
                boot=lambda name, timeout: self._probe(target, name, timeout),
                progress=self._progress,
            )
            self._accels[target.arch] = found
            if found.why and plan.can_accelerate(target):
                self.say(f"machines are emulated (TCG): KVM does not work here: {found.why}")
            return found

    # --- what it opens ---

    def factory(self, target: QemuTarget) -> Factory:
        """Where machines of this description come from; one a description."""
        from pytest_hil.qemu import plan
        from pytest_hil.qemu.factory import Factory

        with self._lock:
            known = self._factories.get(target)
            if known is None:
                made = plan.make(
                    target,
                    self.config,
                    self.cache,
                    accel=self.accel(target).name,
                    progress=self._progress,
                )
                for warning in made.warnings:
                    self.say(warning)
                known = Factory(
                    made,
                    self.cache,
                    self.room,
                    boot_timeout=self.settings.boot_timeout,
                    room_timeout=self.settings.room_timeout,
                    progress=self._progress,
                    say=self.say,
                    templates=self.settings.templates,
                    free_idle=self._free_idle,
                )
                self._factories[target] = known
            return known

    @overload
    def open(self, target: QemuTarget) -> Guest: ...
    @overload
    def open(self, target: BoardTarget) -> Board: ...
    @overload
    def open(
        self, target: AnyTarget, *, features: frozenset[str] = ..., board: str = ...
    ) -> Opened: ...

    def open(
        self, target: AnyTarget, *, features: frozenset[str] = frozenset(), board: str = ""
    ) -> Opened:
        """A target, ready to be used: a factory-fresh machine, or a board at its shell.

        ``board``: the one of several that is asked for first. Who opened it closes it. Raises
        ConfigError, and InfrastructureError of all kinds.
        """
        if isinstance(target, BoardTarget):
            return self.stations.open((target,))
        if isinstance(target, PoolTarget):
            fitting = target.fitting(features)
            return self.stations.open(sorted(fitting, key=lambda one: one.name != board))
        return self.open_machine(target)

    @property
    def stations(self) -> Stations:
        """The boards that this bench has."""
        with self._lock:
            if self._stations is None:
                from pytest_hil.stations import Stations

                self._stations = Stations(
                    self.lab,
                    health=self.health,
                    wait=self.settings.board_wait,
                    purpose=self.settings.purpose,
                    progress=self._progress,
                    say=self.say,
                )
            return self._stations

    def give_way(self) -> None:
        """Give back the boards that no test uses now and others wait for."""
        with self._lock:
            stations = self._stations
        if stations is not None:
            stations.give_way()

    def open_machine(self, target: QemuTarget) -> Guest:
        """:meth:`open` for machines."""
        from pytest_hil.qemu.guest import Guest

        factory = self.factory(target)
        machine, origin = factory.fresh()
        return self._keep(Guest(factory, machine, origin, boot_timeout=self.settings.boot_timeout))

    def prepare(self, target: AnyTarget, ahead: int = 1) -> None:
        """Begin to make the next machines of this description ready, in the background.

        The machines that are ready for other descriptions give way.
        """
        if not isinstance(target, QemuTarget):
            return
        with self._lock:
            factory = self._factories.get(target)
            others = [one for key, one in self._factories.items() if key != target]
        for other in others:
            other.free_idle(wait=False)
        if factory is not None:
            factory.prepare(ahead)

    def open_saved(self, target: QemuTarget, directory: Path) -> Guest:
        """A target that goes on from a saved state (``--hil-keep``)."""
        from pytest_hil.qemu.factory import Origin
        from pytest_hil.qemu.guest import Guest

        factory = self.factory(target)
        machine = factory.resume(directory, post_mortem=True)
        origin = Origin("snapshot", str(directory))
        return self._keep(Guest(factory, machine, origin, boot_timeout=self.settings.boot_timeout))

    def _keep(self, guest: Guest) -> Guest:
        """Remember what was opened, until it is closed."""
        with self._lock:
            self._opened = [one for one in self._opened if not one.closed]
            self._opened.append(guest)
            closed = self._closed
        if closed:
            from pytest_hil.errors import MachineError

            guest.close()
            raise MachineError(f"the target {guest.name} was opened on a bench that is closed")
        return guest

    def close(self) -> None:
        """End everything; nothing can be opened any more. May be called twice."""
        with self._lock:
            self._closed = True
            opened, self._opened = self._opened, []
            factories, self._factories = list(self._factories.values()), {}
            stations, self._stations = self._stations, None
            labgrid, self._labgrid = self._labgrid, None
        with contextlib.ExitStack() as everything:
            if labgrid is not None:
                everything.callback(labgrid.close)
            if stations is not None:
                everything.callback(stations.close)
            for factory in factories:
                everything.callback(factory.close)
            for guest in opened:
                everything.callback(guest.close)

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def say(self, line: str) -> None:
        """Tell the user something, once."""
        with self._lock:
            if line in self._said:
                return
            self._said.add(line)
        self._say(line)

    def _free_idle(self) -> bool:
        """Give up one machine that is kept ready; whether there was one."""
        # No lock: this is asked for inside of calls that may hold it.
        return any(factory.free_idle() for factory in list(self._factories.values()))

    def _probe(self, target: QemuTarget, name: Any, timeout: float) -> None:
        """Boot our own image under an accelerator, or raise."""
        from pytest_hil.qemu import plan, template
        from pytest_hil.qemu.machine import Seat

        plain = QemuTarget(name=f"{target.arch}-{name}-probe", arch=target.arch)
        made = plan.make(plain, self.config, self.cache, accel=name, progress=self._progress)
        made = replace(made, hardware=replace(made.hardware, network="none"))
        seat = Seat(self.room, progress=self._progress)
        template.boot_cold(made, seat, boot_timeout=timeout).close()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
