"""Templates: machines that were booted once and saved, from which every test gets a clone."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

from pytest_hil.cache import Cache
from pytest_hil.errors import HilError, InfrastructureError, MachineDied, TemplateError
from pytest_hil.progress import Progress, silent
from pytest_hil.qemu import boot, cmdline, state
from pytest_hil.qemu.accel import cpu_model
from pytest_hil.qemu.machine import Machine, Seat
from pytest_hil.qemu.plan import Plan
from pytest_hil.qemu.state import State

KIND = "templates"
_KERNEL_TIME = re.compile(r"^\[ *[0-9.]+\] ")


def key(plan: Plan) -> str:
    """What a template depends on: every byte that boots, the whole command line, QEMU, the format.

    Under KVM the host's processor too: the guest has seen its features.
    """
    facts = [
        state.FORMAT,
        plan.image_key,
        cmdline.fingerprint(plan.hardware),
        plan.emulator.fingerprint,
        plan.emulator.version,
        cpu_model() if plan.hardware.accel == "kvm" else "",
        # Its disks lie on the user's by their names: another file there is another disk.
        *(str(disk.path.absolute()) for disk in plan.hardware.disks),
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def ready(plan: Plan, cache: Cache) -> State | None:
    """The template, if it is there."""
    found = cache.get(KIND, key(plan))
    return None if found is None else State(found)


def make(plan: Plan, cache: Cache, seat: Seat, *, boot_timeout: float) -> State:
    """The template; boots and saves one if there is none. One process builds, others wait.

    Raises what booting raises, TemplateError, NoRoom.
    """
    name = plan.hardware.name

    def build(directory: Path) -> None:
        began = time.monotonic()
        seat.progress(f"{name}: booting the template")
        state.check_disk(directory, plan.hardware.memory or 0)
        memory = state.memory_for(directory, plan.hardware.memory or 0)
        with Machine(plan.hardware, seat, memory=memory) as machine:
            wait_with_progress(machine, plan, seat.progress, boot_timeout)
            _settle(machine)
            state.save(machine, directory)
        seat.progress(f"{name}: template made in {time.monotonic() - began:.1f} s")

    return State(cache.make(KIND, key(plan), build, progress=seat.progress))


def clone(plan: Plan, template: State, seat: Seat) -> Machine:
    """A new machine from a template, with randomness, time and identity of its own.

    Raises TemplateError when the template is unusable, NoRoom.
    """
    try:
        machine = state.load(template, plan.hardware, seat)
    except MachineDied as error:
        raise TemplateError(f"no clone could be made from {template.path}: {error}") from error
    try:
        boot.hello(machine, 30)
        boot.personalise(machine)
    except HilError as error:
        machine.close()
        raise TemplateError(f"a clone from {template.path} does not answer: {error}") from error
    except BaseException:
        machine.close()
        raise
    return machine


def boot_cold(plan: Plan, seat: Seat, *, boot_timeout: float) -> Machine:
    """A machine without a template: booted from its kernel."""
    machine = Machine(plan.hardware, seat)
    try:
        wait_with_progress(machine, plan, seat.progress, boot_timeout)
        if machine.shell is not None:
            boot.personalise(machine)
    except BaseException:
        machine.close()
        raise
    return machine


def wait_with_progress(machine: Machine, plan: Plan, progress: Progress, timeout: float) -> None:
    """Wait until a booting machine is ready; its newest console line is the progress."""
    began = time.monotonic()
    show = _console_lines(plan.hardware.name, progress, began)
    unsubscribe = machine.console.subscribe(show)
    try:
        boot.wait_until_ready(
            machine, timeout=timeout, ready=plan.target.ready, own_image=plan.own_image
        )
    finally:
        unsubscribe()


def _console_lines(name: str, progress: Progress, began: float) -> Callable[[bytes], None]:
    if progress is silent:
        return lambda _data: None
    last, rest = began, b""

    def show(data: bytes) -> None:
        nonlocal last, rest
        *whole, rest = (rest[-1000:] + data).split(b"\n")
        lines = [line for line in whole if line.strip()]
        now = time.monotonic()
        # A person reads a few lines a second, a kernel prints hundreds.
        if lines and now - last >= 0.25:
            last = now
            line = _KERNEL_TIME.sub("", lines[-1].decode(errors="replace").strip())
            progress(f"{name}: booting, {now - began:.1f} s: {line[:100]}")

    return show


def _settle(machine: Machine) -> None:
    """Bring the machine to rest with the paths warm that every test takes.

    The page cache then holds the shell's pages, so that no clone has to fault them in anew.
    """
    assert machine.shell is not None
    with machine.watching():
        try:
            machine.shell.run(["/bin/sh", "-c", "true"], timeout=30)
            machine.shell.sync()
        except InfrastructureError:
            raise
        except HilError as error:
            raise TemplateError(
                f"the machine {machine.hardware.name} booted, but runs no command: {error}"
            ) from error
