"""Waiting until a machine that boots is ready, and saying why when it never is."""

from __future__ import annotations

import contextlib
import os
import platform
import time
import uuid
from collections.abc import Iterator

from pytest_hil.errors import BootTimeout, ChannelLost, ConsoleClosed, ExpectTimeout, MachineError
from pytest_hil.qemu.machine import Machine
from pytest_hil.qemu.monitor import Event

READY_LINE = "pytest-hil: ready"
# To the end of the line: a console brings a line in pieces.
_FAILED = r"pytest-hil: startup failed: [^\r\n]*[\r\n]"
_PANIC = r"Kernel panic - not syncing: [^\r\n]*[\r\n]"
_NO_BOOT = r"Unable to mount root fs|No bootable device"
# Firmware may reset once or twice on the way, and a distribution after its first start.
_MOST_RESETS = 5


def wait_until_ready(machine: Machine, *, timeout: float, ready: str, own_image: bool) -> None:
    """Return when the machine is ready.

    ``own_image``: our initramfs, which says a fixed line and whether its startup lines failed.
    ``ready``: a regular expression on the console for machines without an agent ("": at once).
    Raises BootTimeout, MachineError (panic, failed startup), MachineDied.
    """
    deadline = time.monotonic() + timeout
    pattern = READY_LINE if own_image else ready
    if pattern:
        _expect(machine, pattern, timeout)
    if machine.shell is not None:
        hello(machine, max(0.1, deadline - time.monotonic()))
    else:
        # QEMU looks again whether a UART takes input only when its main loop wakes. One whose
        # receiver was still off the last time (cmsdk-apb-uart) would hear nothing for ever.
        with machine.watching():
            machine.monitor.execute("query-status")


def hello(machine: Machine, timeout: float) -> None:
    """The agent answers. Raises BootTimeout, MachineDied."""
    assert machine.shell is not None
    try:
        with machine.watching():
            machine.shell.hello(timeout)
    except ChannelLost as error:
        raise BootTimeout(
            machine.hardware.name,
            timeout=timeout,
            waited_for=_agent(machine),
            console=machine.console.tail(20),
        ) from error


def _agent(machine: Machine) -> str:
    if READY_LINE in machine.console.tail(20):
        # Everything else of it is up, so it is the channel that is missing.
        return "its agent to answer; the guest is up: does its kernel have CONFIG_VIRTIO_CONSOLE?"
    return "its agent to answer"


def _expect(machine: Machine, pattern: str, timeout: float) -> None:
    name = machine.hardware.name
    try:
        with machine.watching(), _counting_resets(machine):
            found = machine.console.expect([pattern, _FAILED, _PANIC, _NO_BOOT], timeout=timeout)
    except ExpectTimeout as error:
        raise BootTimeout(
            name,
            timeout=timeout,
            waited_for=f"{pattern!r} on its console",
            console=machine.console.tail(20),
        ) from error
    except ConsoleClosed as error:
        raise MachineError(f"the machine {name} ended while it booted: {error}") from error
    if found.index:
        raise MachineError(
            f"the machine {name} did not boot: {found.text.strip()}\n  the console's last lines:\n"
            + "\n".join(f"    {line}" for line in machine.console.tail(20).splitlines())
        )


@contextlib.contextmanager
def _counting_resets(machine: Machine) -> Iterator[None]:
    """A machine that only resets, over and over, is said to, instead of waited for."""
    resets, said = 0, -1

    def count(event: Event) -> None:
        nonlocal resets, said
        # A kernel that restarts tries several ways, at once: what counts is one that came to say
        # something.
        now = machine.console.mark().raw
        if event["event"] == "RESET" and event["data"].get("guest") and now != said:
            said = now
            resets += 1
            if resets > _MOST_RESETS:
                last = "\n".join(f"    {line}" for line in machine.console.tail(20).splitlines())
                name = machine.hardware.name
                machine.console.fail(
                    MachineError(
                        f"the machine {name} resets over and over while it boots ({resets} times "
                        f"until now); the console's last lines:\n{last}",
                        mend="a kernel that dies before it has a console resets like this: "
                        'extra_args = ["-no-reboot", "-d", "int,cpu_reset"] shows where',
                    )
                )

    end = machine.monitor.subscribe(count)
    try:
        yield
    finally:
        end()


def personalise(machine: Machine, *, identity: bool = True, timeout: float = 20.0) -> None:
    """Give a machine randomness, the time, and an identity of its own.

    Without this every clone of a template draws the same random numbers, lives at the time at
    which the template was made, and has its name. ``identity`` false: it goes on as who it was.
    """
    assert machine.shell is not None
    own = uuid.uuid4().hex
    with machine.watching():
        machine.shell.personalise(
            entropy=os.urandom(64),
            time_ns=time.time_ns(),
            hostname=f"hil-{own[:12]}" if identity else None,
            machine_id=own if identity else None,
            timeout=timeout,
        )


def host_facts() -> str:
    """What a saved state of a KVM machine depends on beside QEMU."""
    return f"{platform.release()} {platform.machine()}"
