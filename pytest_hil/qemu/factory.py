"""Where the machines of one plan come from: a clone made ready before, a new clone, a boot."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pytest_hil.cache import Cache
from pytest_hil.errors import (
    BootTimeout,
    Crashed,
    ImageError,
    InfrastructureError,
    MachineDied,
    NoMemory,
    NoRoom,
    TemplateError,
)
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu import boot, template
from pytest_hil.qemu.machine import Machine, Seat
from pytest_hil.qemu.plan import Plan
from pytest_hil.qemu.room import Room
from pytest_hil.qemu.state import State, load

# Making a machine ready takes a little longer than a short test lasts: with two under way the
# next one is there in time.
AHEAD = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """How a machine came to be: ``prepared``, ``clone``, ``boot`` or ``snapshot``; and why."""

    how: str
    why: str = ""


class Factory:
    """Makes machines of one plan. Closing it ends what it made and nobody took.

    ``say`` gets, once each, the reasons why something is slower than it could be.
    ``templates`` false: always boot. ``free_idle`` gives up a machine that is kept ready, of
    whichever factory, when the host is full; it says whether there was one.
    """

    def __init__(
        self,
        plan: Plan,
        cache: Cache,
        room: Room,
        *,
        boot_timeout: float,
        room_timeout: float = 300.0,
        progress: Progress = silent,
        say: Callable[[str], None] = silent,
        templates: bool = True,
        free_idle: Callable[[], bool] | None = None,
    ) -> None:
        self.plan = plan
        self._cache = cache
        self._boot_timeout = boot_timeout
        self._say = say
        self._no_template = _why_none(plan, wanted=templates)
        self.seat = Seat(
            room, timeout=room_timeout, progress=progress, free_idle=free_idle or self.free_idle
        )
        self._lock = threading.Lock()
        self._ready: deque[Future[Machine]] = deque()
        self._worker: ThreadPoolExecutor | None = None
        self._said: set[str] = set()
        self._closed = False

    def fresh(self) -> tuple[Machine, Origin]:
        """A factory-fresh machine, ready to be used.

        Raises what booting raises, when there is no other way left.
        """
        if (machine := self._take_prepared()) is not None:
            return machine, Origin("prepared")
        state = self.template()
        if state is not None:
            try:
                return template.clone(self.plan, state, self.seat), Origin("clone")
            except TemplateError as error:
                why = f"its template could not be used: {error}"
                if _was_killed(error):
                    # By somebody, or for want of memory: the template is as good as before.
                    machine = template.boot_cold(
                        self.plan, self.seat, boot_timeout=self._boot_timeout
                    )
                    return machine, Origin("boot", why)
                # Whatever is wrong with it: the next run makes another.
                with suppress(InfrastructureError):
                    self._cache.remove(template.KIND, state.path.name)
                self._give_up(why)
        machine = template.boot_cold(self.plan, self.seat, boot_timeout=self._boot_timeout)
        return machine, Origin("boot", self._no_template)

    def resume(
        self,
        directory: Path,
        *,
        give_way: Callable[[], bool] = lambda: False,
        post_mortem: bool = False,
    ) -> Machine:
        """A machine that goes on from a saved state of this hardware, as who it was then.

        It gets new randomness and the time of day. ``give_way`` ends a machine that is about to be
        replaced, when the host is full, and says whether there was one. ``post_mortem``: it may be
        one that answers no more (a kernel that panicked) but has a console and memory to look at.
        Raises TemplateError, NoRoom.
        """
        free = self.seat.free_idle
        seat = replace(self.seat, free_idle=lambda: free() or give_way())
        machine = load(State(directory), self.plan.hardware, seat)
        try:
            try:
                boot.hello(machine, 3 if post_mortem else 30)
            except BootTimeout:
                if not post_mortem:
                    raise
                if machine.shell is not None:
                    machine.shell.fail(
                        Crashed(
                            f"the machine {machine.hardware.name} does not answer: it was kept "
                            "after its kernel had panicked, or hung",
                            mend="its console, its memory and QEMU's monitor can be looked at",
                        )
                    )
                return machine
            boot.personalise(machine, identity=False)
        except BaseException:
            machine.close()
            raise
        return machine

    def template(self) -> State | None:
        """The template, made if need be; None when there can be none (said once, and why)."""
        if self._no_template:
            return None
        try:
            return template.make(self.plan, self._cache, self.seat, boot_timeout=self._boot_timeout)
        except NoMemory:
            raise  # a machine that is booted needs as much
        except (TemplateError, ImageError, NoRoom, MachineDied) as error:
            # The guest may be fine: what failed is our keeping it. Booting has its own errors.
            self._give_up(str(error))
            return None

    def prepare(self, ahead: int = 1) -> None:
        """Begin to make the next ``ahead`` machines ready, in the background, if there is room."""
        with self._lock:
            if len(self._ready) >= ahead or self._no_template or self._closed:
                return
            state = template.ready(self.plan, self._cache)
            if state is None:
                return
            if self._worker is None:
                self._worker = ThreadPoolExecutor(AHEAD, thread_name_prefix="hil-prepare")
            while len(self._ready) < ahead:
                self._ready.append(self._worker.submit(self._make_ready, state))

    def close(self) -> None:
        """End the machines that are kept ready; none is made ready any more."""
        with self._lock:
            self._closed = True
        while self._ready:
            self.free_idle()
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown()

    def _make_ready(self, state: State) -> Machine:
        seat = replace(self.seat, timeout=0.0, progress=silent, free_idle=lambda: False)
        machine = template.clone(self.plan, state, seat)
        assert machine.shell is not None
        try:
            # Emulated code is translated when it first runs, and that is not part of a template:
            # let the paths that every test takes be translated now.
            machine.shell.run(["/bin/sh", "-c", "/bin/true"], timeout=30)
        except BaseException:
            machine.close()
            raise
        return machine

    def _take_prepared(self) -> Machine | None:
        machine = self._take_next()
        if machine is not None and machine.died() is not None:
            machine.close()
            return None
        return machine

    def _take_next(self) -> Machine | None:
        while True:
            with self._lock:
                if not self._ready:
                    return None
                future = self._ready.popleft()
            try:
                return future.result()
            except Exception:
                continue  # asking for a new one says what is wrong, if it still is
            except BaseException:
                # Interrupted (Ctrl-C) while it was being made: nobody will ask for it again.
                future.add_done_callback(_close_unclaimed)
                raise

    def free_idle(self, *, wait: bool = True) -> bool:
        """Give up a machine that is kept ready; whether there was one.

        ``wait``: for one that is just being made, too: it is a matter of a tenth of a second.
        """
        with self._lock:
            if not self._ready or not (wait or self._ready[0].done()):
                return False
        machine = self._take_next()
        if machine is None:
            return False
        machine.close()
        return True

    def _give_up(self, why: str) -> None:
        self._no_template = self._no_template or why
        if why not in self._said:
            self._said.add(why)
            self._say(
                f"target {self.plan.hardware.name}: no template, every machine is booted: {why}"
            )


def _close_unclaimed(future: Future[Machine]) -> None:
    if future.exception() is None:
        future.result().close()


def _was_killed(error: TemplateError) -> bool:
    """Whether a clone failed by what was done to its QEMU, not by what it was given."""
    cause = error.__cause__
    return isinstance(cause, MachineDied) and (
        cause.exit_code == -signal.SIGKILL or "Cannot allocate memory" in cause.stderr
    )


def _why_none(plan: Plan, *, wanted: bool) -> str:
    if not wanted:
        return "not wanted"
    if not plan.hardware.agent:
        return "machines without an agent are always booted"
    if not plan.can_save:
        return f"the machine type {plan.hardware.machine} cannot be saved"
    return ""
