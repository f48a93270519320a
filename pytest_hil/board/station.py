"""A board that is ours for now: its console, its power, and where it stands in its boot.

It lasts over several tests; each of them uses it through a :class:`pytest_hil.board.board.Board`.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from pytest_hil.board import shells
from pytest_hil.board.boot.path import OFF, Restart, Step, path
from pytest_hil.board.boot.stage import Placed, Refused, StageFailed, Way, open_stages
from pytest_hil.board.console.open import console_on, open_line
from pytest_hil.board.power.switch import Switch, open_switch
from pytest_hil.config.board import BoardTarget
from pytest_hil.console.capture import Mark
from pytest_hil.errors import (
    ChannelLost,
    ConfigError,
    ConsoleClosed,
    ExpectTimeout,
    HilError,
    InfrastructureError,
    NotThere,
    OutcomeUnknown,
    Unsupported,
    nearest,
    visible,
)
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.board.boot.bootloader import Commands
    from pytest_hil.console.session import Console
    from pytest_hil.crash import Crash
    from pytest_hil.crash_watch import CrashWatch
    from pytest_hil.shell.serial import SerialShell
    from pytest_hil.shell.ssh import SshShell

Events = Callable[..., None]

_LINES = 12
# Seconds that a reset line is held.
_PULSE = 0.2


class Station:
    """Opens the console at once, and nothing else. Any thread may call, one at a time.

    A console that is not there is waited for once the board has power, if that can be switched: its
    adapter may be powered by the board.

    ``state`` is a stage's name, "off", or None when nobody knows. ``events`` gets (kind, **facts).
    ``on_down`` is told why all that ran on it is gone.
    Raises ConfigError and InfrastructureError of all kinds.
    """

    def __init__(self, target: BoardTarget, *, progress: Progress = silent) -> None:
        self.target = target
        self.name = target.name
        self.events: Events = lambda *_args, **_facts: None
        self.state: str | None = None
        # Where its console was when it came to that.
        self._entered = Mark(0, 0)
        # Whether it left that by itself, is booting, and nobody has typed anything since.
        self._boots = False
        # Whether its power was switched on here, and not off again.
        self._switched_on = False
        self.crash_watch: CrashWatch | None = None
        self.on_down: Callable[[str], object] = bool
        self._progress = progress
        self._stages = open_stages(target.boot)
        self._shell: SerialShell | SshShell | None = None
        with contextlib.ExitStack() as opened:
            self._switch = self._open_switch("power", opened)
            self._reset = self._open_switch("reset", opened)
            shells.check(target)
            late = self._switch is not None
            self._line = open_line(target.console, name=self.name, late=late)
            self.console: Console = console_on(self._line, name=self.name)
            opened.callback(self.console.close)
            self._everything = opened.pop_all()

    def _open_switch(self, what: str, opened: contextlib.ExitStack) -> Switch | None:
        section = self.target.power if what == "power" else self.target.reset
        if section is None:
            return None
        found = open_switch(section, name=f"{self.name}'s {what}" if what == "reset" else self.name)
        opened.callback(found.close)
        return found

    # --- where it stands ---

    @property
    def states(self) -> tuple[str, ...]:
        """All that :meth:`boot` can be asked for."""
        return (OFF, *(one.name for one in self._stages))

    @property
    def last(self) -> str:
        """The state at the end of its boot. Raises Unsupported when it has no stages."""
        if not self._stages:
            raise self._lacks("boot stages")
        return self._stages[-1].name

    @property
    def _restart(self) -> Restart:
        """What makes it begin anew."""
        if self._switch is not None:
            return "power"
        return "nothing" if self._reset is None else "reset"

    def _lacks(self, what: str) -> Unsupported:
        """It has no stages, and so not this either."""
        mend = f"add [[target.{self.name}.boot]] tables to boards.toml: its way to a shell"
        return Unsupported(self.name, what, mend=mend)

    def at_rest(self) -> bool:
        """Whether it is at the end of its boot, and nobody has it leave that."""
        return bool(self._stages) and self.state == self._stages[-1].name

    def gone(self, crash: Crash) -> None:
        """Its console says that it is not where it was any more."""
        self._boots = crash.kind == "reset" and self.at_rest()
        self.state = None
        if self._boots:
            self.on_down("the board restarted by itself")

    def boot(self, stage: str | None = None) -> None:
        """Bring it to a stage; None: to the last one. Only what is needed is driven.

        Raises ConfigError for a stage that there is not, StageFailed, PowerError, ChannelLost.
        """
        wanted = self.last if stage is None else stage
        if wanted not in self.states:
            raise ConfigError(
                f"the board {self.name}",
                f"there is no stage {wanted!r}",
                mend=nearest(wanted, self.states),
            )
        for step in path(self._stages, self.state, wanted, restart=self._restart):
            self._go(step)

    def ready(self) -> None:
        """To the last stage, from wherever it is: what it is in already is found out first.

        Without stages nobody can ask it more than that it has power.
        """
        if not self._stages:
            self._have_power()
            return
        if self.state is None and self._switch is not None and self._switch.read() is False:
            self.state = OFF
        # A console that is not there may need the board's power.
        can_ask = self._line.there or self._switch is None
        if self.state is None and can_ask:
            self._look()
        elif self.state == self.last and not self._is_here(self._stages[-1]):
            self.state = None
        self.boot()

    def follow_restart(self) -> None:
        """To the last stage, if its console shows that it is on the way there by itself.

        Nothing is typed while nobody has: it might stop a boot loader. Raises StageFailed,
        ChannelLost.
        """
        if not self._stages or self.state not in (None, self.last):
            return
        if not (self._boots or self._restarted(self.console.since(self._entered))):
            return
        if self.state is None and not self._boots:
            # What the shell has typed meanwhile may have been taken for a name, or a password.
            self.console.skip(self.console.mark())
            self._is_here(self._stages[-1])
        self._go(Step("enter", self.last))

    def restart(self) -> None:
        """To the last stage from the beginning, so that it is known that all of it works.

        What cannot be made to begin anew is taken as it is: :meth:`ready`.
        """
        match self._restart:
            case "power":
                self.cycle()
            case "reset":
                self.reset()
            case "nothing":
                self.state = None
                self.ready()

    def cycle(self) -> None:
        """Off, on, and to the last stage if it has any. Raises as :meth:`boot` does."""
        self.off()
        self._go(Step("on"))
        self._follow()

    def _follow(self) -> None:
        """It has just begun to boot: to the last stage, if it has any."""
        for step in path(self._stages, OFF, self.last)[1:] if self._stages else ():
            self._go(step)

    def _have_power(self) -> None:
        """On, unless it is: a switch that cannot say was last told so here."""
        if self._switch is None:
            return
        said = self._switch.read()
        if not (self._switched_on if said is None else said):
            self._go(Step("on"))

    def _look(self) -> None:
        """Whether it is at its last stage; at another only where it cannot begin anew."""
        asked = self._stages if self._restart == "nothing" else self._stages[-1:]
        for one in reversed(asked):
            if self._is_here(one):
                self.state = one.name
                self._entered = self.console.mark()
                return

    def _is_here(self, placed: Placed) -> bool:
        try:
            return placed.stage.here(Way(self.console, placed.timeout))
        except (HilError, OSError):
            return False

    # --- moves ---

    def _go(self, step: Step) -> None:
        self._forget_shell()
        began = time.monotonic()
        self.state = None
        self._boots = False
        if step.move == "off":
            self.off()
            return
        # What it said before is no answer to what comes now.
        if step.move != "enter":
            self.console.skip(self.console.mark())
        if step.move == "on":
            self._power().on()
            self._switched_on = True
            self._line.powered()
        elif step.move == "reset":
            self._pulse()
        else:
            placed = next(one for one in self._stages if one.name == step.stage)
            self._drive(placed, step)
            if step.move == "enter":
                self.state = placed.name
                self._entered = self.console.mark()
        facts = {"stage": step.stage} if step.stage else {}
        self.events("boot", move=step.move, seconds=round(time.monotonic() - began, 3), **facts)

    def _drive(self, placed: Placed, step: Step) -> None:
        self._progress(
            f"{self.name}: {'on the way to' if step.move == 'enter' else 'leaving'} {placed.name}"
        )
        way = Way(self.console, placed.timeout)
        mark = self.console.mark()
        try:
            (placed.stage.enter if step.move == "enter" else placed.stage.leave)(way)
        except (Refused, ExpectTimeout, ConsoleClosed) as error:
            said = self.console.since(mark).rstrip().splitlines()[-_LINES:]
            why = str(error) if isinstance(error, Refused) else str(error).splitlines()[0]
            mend = error.mend if isinstance(error, Refused) else ""
            if not mend and not "".join(said).strip():
                mend = "has it power, is this its console, and is the line's speed right?"
            raise StageFailed(
                self.name, placed.name, why, console="\n".join(said), mend=mend
            ) from error

    def _power(self) -> Switch:
        if self._switch is None:
            raise Unsupported(
                self.name, "power switch", mend=f"add [target.{self.name}.power] to boards.toml"
            )
        return self._switch

    def off(self) -> None:
        """Take its power away. Raises PowerError."""
        self._forget_shell()
        self.state = None
        began = time.monotonic()
        self._power().off()
        self._switched_on = False
        self._line.unpowered()
        self.state = OFF
        self.events("boot", move="off", seconds=round(time.monotonic() - began, 3))
        self.on_down("the board was switched off")

    def is_on(self) -> bool:
        """Whether it has power; as far as is known where the switch cannot say."""
        state = self._power().read()
        return self.state != OFF if state is None else state

    def reset(self) -> None:
        """By its reset line, or by a power cycle; then to the last stage."""
        self._forget_shell()
        self.state = None
        if self._reset is None:
            self._power().off()
            self._line.unpowered()
            self._go(Step("on"))
            self.on_down("the board was reset")
        else:
            self._pulse()
        self.events("reset")
        self._follow()

    def _pulse(self) -> None:
        """Pull its reset line."""
        assert self._reset is not None
        self._reset.on()
        time.sleep(_PULSE)
        self.console.skip(self.console.mark())
        self._reset.off()
        self.on_down("the board was reset")

    # --- what is at the end of it ---

    def shell(self, what: str) -> SerialShell | SshShell:
        """The shell at the last stage. Raises Unsupported, and NotThere when it is elsewhere."""
        if self._stages and not self.target.has_shell:
            mend = 'boards.toml says shell = "none" of it: it has its console'
            raise Unsupported(self.name, f"shell to {what}", mend=mend)
        if not self._stages:
            raise self._lacks(f"shell to {what}")
        if self.state != self.last:
            # The test has switched it off, or stopped its boot: that is no fault of the board's.
            kind = InfrastructureError if self.state is None else NotThere
            raise kind(
                f"the board {self.name} is {self._where()}: no shell to {what}",
                mend="hil.boot() brings it to its shell",
            )
        if self._shell is None:
            self._shell = shells.open_shell(self.target, self.console, self._lost)
        return self._shell

    def _where(self) -> str:
        if self.state == OFF:
            return "switched off"
        return "in an unknown state" if self.state is None else f"at its {self.state}"

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """What breaks of our side in here is this board's, and says so."""
        try:
            with self._with_reason():
                yield
        except InfrastructureError as error:
            error.board = self.name
            raise

    @contextlib.contextmanager
    def _with_reason(self) -> Iterator[None]:
        """What a console that broke, and a board that restarted, make of a command says so."""
        mark = self.console.mark()
        try:
            yield
        except OutcomeUnknown as error:
            if self._restarted(self.console.since(mark)):
                last = "\n".join(f"    {x}" for x in self.console.tail(8).splitlines())
                raise OutcomeUnknown(
                    f"the board {self.name} restarted while a command ran; the console's last "
                    f"lines:\n{visible(last)}",
                    mend="a crash, a watchdog, or its power: console.log has all of it",
                ) from error
            raise
        except ChannelLost as error:
            if self._line.failure and self._line.failure not in error.message:
                raise ChannelLost(
                    f"the console of {self.name} broke: {self._line.failure}"
                ) from error
            raise

    def _restarted(self, said: str) -> bool:
        signs = [sign for one in self._stages for sign in getattr(one.stage, "signs", ())]
        return any(re.search(sign.replace(r"\Z", ""), said) for sign in signs)

    def _lost(self) -> None:
        self._forget_shell()
        self.state = None

    def _forget_shell(self) -> None:
        shell, self._shell = self._shell, None
        if shell is not None:
            shell.close()

    @property
    def bootloader(self) -> Commands:
        """The bootloader's prompt, where the board is now. Raises Unsupported."""
        from pytest_hil.board.boot.bootloader import Bootloader, Commands

        for one in self._stages:
            if isinstance(one.stage, Bootloader) and one.name == self.state:
                return Commands(one.stage, self.console)
        raise Unsupported(
            self.name,
            f"bootloader's prompt now: it is {self._where()}",
            mend='hil.boot("bootloader") brings it there',
        )

    def close(self) -> None:
        """Let go of console and power, as they are. May be called twice."""
        self._forget_shell()
        self._everything.close()
