"""A machine's whole state as files, and machines that start from it.

The memory is a sparse file of its own, mapped copy-on-write by every clone; the rest (devices,
processor) is a stream of a few hundred kB; disks are qcow2 files that only ever serve as a base.
A template, a snapshot and a kept machine are all such a directory::

    memory          the guest's RAM, never written again
    state           QEMU's migration stream, without the RAM (x-ignore-shared)
    disk0.qcow2 …   what the disks held at that moment
    console.log     all that the console had said
    manifest.json   the hardware's command line, QEMU's version, when it was made

QEMU's side of it: docs/devel/migration in its sources. ``x-ignore-shared`` leaves RAM out that is
backed by a shared file; QEMU 4.1 and newer have it. The names of files never matter to a live
clone: it gets descriptors, so a state may be removed at any time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pytest_hil.errors import ChannelLost, MachineError, NoRoom, TemplateError
from pytest_hil.qemu import cmdline, overlay
from pytest_hil.qemu.hardware import Hardware, Memory
from pytest_hil.qemu.machine import Machine, Seat, cannot_start
from pytest_hil.qemu.monitor import CommandError, Event, Monitor
from pytest_hil.qemu.overlay import Overlays

FORMAT = 2
_SAVE_TIMEOUT = 120.0
_LOAD_TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class State:
    """A saved state's directory."""

    path: Path

    @property
    def memory(self) -> Path:
        return self.path / "memory"

    @property
    def stream(self) -> Path:
        return self.path / "state"

    @property
    def console(self) -> Path:
        return self.path / "console.log"

    def disk(self, number: int) -> Path:
        return self.path / f"disk{number}.qcow2"

    def disks(self, count: int) -> list[overlay.Base]:
        """What the overlays of a machine that continues from here lie on."""
        return [overlay.Base(self.disk(number), "qcow2") for number in range(count)]


def memory_for(directory: Path, size: int) -> Memory:
    """A new memory file in a directory that becomes a state: for the machine to be saved there."""
    path = State(directory).memory
    # A guest's memory is its owner's alone: it may hold keys.
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size)
    finally:
        os.close(fd)
    return Memory(str(path), shared=True)


def save(machine: Machine, directory: Path) -> State:
    """Save a machine whose memory is :func:`memory_for` this directory, and end it.

    A machine that runs is stopped by QEMU when its state is complete, and continues by itself when
    that is loaded; one that was stopped before has to be told to go on.
    Raises TemplateError.
    """
    state = State(directory)
    with _explained("save", machine.hardware.name), machine.watching():
        running = bool(machine.monitor.execute("query-status")["running"])
        machine.monitor.execute(*_capabilities(ignore_shared=True))
        fd = os.open(state.stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            machine.monitor.send_fd(fd, "state")
        finally:
            os.close(fd)
        _migrate(machine.monitor, "fd:state")
        version = machine.monitor.execute("query-version")
        machine.monitor.execute("quit")
        # Its exit closes the disks, and only then are they whole.
        if machine.process.wait(30) is None:
            raise TemplateError(f"the machine {machine.hardware.name} did not quit when saved")
    for number, written in enumerate(machine.overlays.paths):
        shutil.move(written, state.disk(number))
    _describe(state, machine, version, running=running)
    return state


def save_live(machine: Machine, directory: Path, seat: Seat) -> State:
    """Save a running machine and let it go on.

    Its memory is private to it (a clone) and no file, so the state is handed to a second QEMU
    that never runs, whose memory is the new file; that one is saved. The disks are frozen by
    putting new overlays on them. The machine stands still meanwhile.

    Raises TemplateError, NoRoom; the machine goes on in any case.
    """
    hardware = machine.hardware
    size = hardware.memory or 0
    check_disk(directory, size)
    with _explained("save", hardware.name), machine.watching():
        machine.monitor.execute("stop")
        try:
            bases = _freeze_disks(machine, State(directory))
            memory = memory_for(directory, size)
            with _waiting(hardware, seat, bases, memory) as carrier:
                _hand_over(machine, carrier)
                # Nothing ever ran on the carrier: its disks are what lies below its overlays.
                carrier.remove_overlays()
                state = save(carrier, directory)
            # While it stands still: what it says from now on is not the saved machine's.
            state.console.write_bytes(machine.console.raw_after(0)[1])
        finally:
            machine.monitor.execute("cont")
    return state


def load(
    state: State,
    hardware: Hardware,
    seat: Seat,
    *,
    timeout: float = _LOAD_TIMEOUT,
) -> Machine:
    """A new machine that continues from a state, on private memory. It runs when this returns.

    Raises TemplateError when the state is damaged or does not fit, NoRoom.
    """
    with contextlib.ExitStack() as ours:
        try:
            directory = os.open(state.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            ours.callback(os.close, directory)
            memory = _open(ours, "memory", os.O_RDWR, directory)
            stream = _open(ours, "state", os.O_RDONLY, directory)
            history = state.console.read_bytes() if state.console.exists() else b""
            _check_whole(state, memory, hardware)
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
                raise cannot_start(hardware.name, error) from error
            raise TemplateError(f"the saved state {state.path} is incomplete: {error}") from error
        with _explained("load", hardware.name):
            machine = _waiting(
                hardware,
                seat,
                state.disks(len(hardware.disks)),
                Memory(f"/proc/self/fd/{memory}", shared=False),
                history=history,
                pass_fds=(memory, stream),
            )
            try:
                with machine.watching():
                    incoming = ("migrate-incoming", {"uri": f"fd:{stream}"})
                    if manifest(state.path).get("running"):
                        # It is not waited for: what comes next is to ask the guest something.
                        machine.monitor.execute_all(_capabilities(ignore_shared=True), incoming)
                    else:
                        machine.monitor.execute(*_capabilities(ignore_shared=True))
                        _incoming(machine.monitor, incoming, timeout)
                        machine.monitor.execute("cont")
            except BaseException:
                machine.close()
                raise
            return machine


def _waiting(
    hardware: Hardware,
    seat: Seat,
    bases: Sequence[overlay.Base],
    memory: Memory,
    *,
    history: bytes = b"",
    pass_fds: Sequence[int] = (),
) -> Machine:
    """A machine that does not boot but waits for a saved state."""
    overlays = Overlays.on(bases)
    try:
        return Machine(
            hardware,
            seat,
            memory=memory,
            overlays=overlays,
            incoming=True,
            history=history,
            pass_fds=pass_fds,
        )
    except BaseException:
        overlays.remove()
        raise


def manifest(path: Path) -> dict[str, object]:
    """A state's manifest; TemplateError when there is none that can be read."""
    try:
        found = json.loads((path / "manifest.json").read_text())
        if not isinstance(found, dict):
            raise ValueError("not a table")
    except (OSError, ValueError) as error:
        raise TemplateError(f"{path} holds no saved machine: {error}") from error
    return found


def _open(ours: contextlib.ExitStack, name: str, flags: int, directory: int) -> int:
    fd = os.open(name, flags | os.O_CLOEXEC, dir_fd=directory)
    ours.callback(os.close, fd)
    return fd


def _check_whole(state: State, memory: int, hardware: Hardware) -> None:
    """A memory file that is too short would kill the clone with SIGBUS in the middle of a test."""
    size = os.fstat(memory).st_size
    if size != hardware.memory:
        raise ValueError(f"its memory has {size} bytes, the machine {hardware.memory}")
    said = manifest(state.path).get("stream")
    if said != (found := state.stream.stat().st_size):
        raise ValueError(f"its state has {found} bytes, was {said}")


def _describe(state: State, machine: Machine, version: dict[str, Any], *, running: bool) -> None:
    """The manifest comes last: a directory without one is no state."""
    if not state.console.exists():
        state.console.write_bytes(machine.console.raw_after(0)[1])
    facts = {
        "format": FORMAT,
        "made": time.time(),
        "running": running,
        "stream": state.stream.stat().st_size,
        "argv": cmdline.fingerprint(machine.hardware),
        "qemu": "{major}.{minor}.{micro}".format(**version["qemu"]),
    }
    (state.path / "manifest.json").write_text(json.dumps(facts, indent=1) + "\n")


def _capabilities(*, ignore_shared: bool) -> tuple[str, dict[str, Any]]:
    """The command that sets what a migration is to be like."""
    wanted = {"x-ignore-shared": ignore_shared, "events": True}
    rows = [{"capability": name, "state": state} for name, state in wanted.items()]
    return "migrate-set-capabilities", {"capabilities": rows}


_MIGRATED = ("completed", "failed", "cancelled")


def _ended(event: Event) -> bool:
    return event["data"]["status"] in _MIGRATED


def _migrate(monitor: Monitor, uri: str) -> None:
    with monitor.waiter("MIGRATION") as waiter:
        monitor.execute("migrate", {"uri": uri})
        status = waiter.wait(_SAVE_TIMEOUT, until=_ended)["data"]["status"]
    if status != "completed":
        raise TemplateError(f"QEMU could not save the machine: {_why(monitor, status)}")


def _incoming(monitor: Monitor, command: tuple[str, dict[str, Any]], timeout: float) -> None:
    with monitor.waiter("MIGRATION") as waiter:
        monitor.execute(*command)
        status = waiter.wait(timeout, until=_ended)["data"]["status"]
    if status != "completed":
        raise TemplateError(f"QEMU could not load the saved state: {_why(monitor, status)}")


def _hand_over(machine: Machine, carrier: Machine) -> None:
    """Stream a stopped machine's whole state, memory too, into the carrier."""
    for one in (machine, carrier):
        one.monitor.execute(*_capabilities(ignore_shared=False))
    here, there = socket.socketpair()
    with here, there:
        machine.monitor.send_fd(here.fileno(), "handover")
        carrier.monitor.send_fd(there.fileno(), "handover")
    with carrier.monitor.waiter("MIGRATION") as arrived:
        carrier.monitor.execute("migrate-incoming", {"uri": "fd:handover"})
        # At full speed: the default limit is a network's.
        machine.monitor.execute("migrate-set-parameters", {"max-bandwidth": 2**40})
        _migrate(machine.monitor, "fd:handover")
        status = arrived.wait(_SAVE_TIMEOUT, until=_ended)["data"]["status"]
    if status != "completed":
        raise TemplateError(f"the state did not arrive: {_why(carrier.monitor, status)}")


def _freeze_disks(machine: Machine, state: State) -> list[overlay.Base]:
    """Put a new overlay on each disk of a stopped machine; what it wrote so far is the state's."""
    for number, written in enumerate(machine.overlays.paths):
        fresh = machine.overlays.new_path()
        overlay.create(fresh, overlay.Base(written, "qcow2"))
        machine.monitor.execute(
            "blockdev-snapshot-sync",
            {
                "node-name": _top_node(machine, number),
                "snapshot-file": str(fresh),
                "snapshot-node-name": f"disk{number}-{fresh.stem}",
                "mode": "existing",
            },
        )
        machine.overlays.paths[number] = fresh
        # Below it is the disk of the template or snapshot that the machine came from, which may be
        # removed any time: what is saved lies on the user's image alone.
        disk = machine.hardware.disks[number]
        overlay.flatten(written, overlay.Base(disk.path, disk.format), state.disk(number))
    return state.disks(len(machine.overlays.paths))


def _top_node(machine: Machine, number: int) -> str:
    """The node that the guest's disk uses now."""
    for device in machine.monitor.execute("query-block"):
        if f"disk{number}-dev" in device.get("qdev", "").split("/"):
            return str(device["inserted"]["node-name"])
    raise TemplateError(f"the machine {machine.hardware.name} has no disk {number}")


def check_disk(directory: Path, size: int) -> None:
    """NoRoom when a state of that size may not fit: a memory file that cannot grow is a SIGBUS."""
    free = shutil.disk_usage(directory).free
    if free < size:
        raise NoRoom(
            f"saving the machine may take {size // 2**20} MB in {directory}; "
            f"{free // 2**20} MB are free",
            mend="free some disk, or use another one: TMPDIR=DIR for snapshots, "
            "PYTEST_HIL_CACHE=DIR for templates, --hil-artifacts=DIR for kept machines",
        )


def _why(monitor: Monitor, status: str) -> str:
    with contextlib.suppress(MachineError, ChannelLost):
        told = monitor.execute("query-migrate").get("error-desc")
        if told:
            return f"{status}: {told}"
    return status


@contextlib.contextmanager
def _explained(what: str, name: str) -> Iterator[None]:
    """One kind of error for all that may go wrong with a state."""
    try:
        yield
    except (CommandError, ChannelLost) as error:
        raise TemplateError(f"could not {what} the state of the machine {name}: {error}") from error
    except OSError as error:
        raise TemplateError(
            f"could not {what} the state of the machine {name}: {error}",
            mend="is the disk full, or may it not be written?",
        ) from error
