"""Which accelerator really works here: found out by booting, remembered per host and QEMU.

/dev/kvm may be there, open, and still be of no use (nested in a host that forbids it): the
only probe is a guest that boots under it and says so.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pytest_hil.cache import Cache
from pytest_hil.errors import ConfigError, InfrastructureError, NoRoom
from pytest_hil.progress import Progress
from pytest_hil.qemu.emulator import Emulator
from pytest_hil.qemu.hardware import AccelName

Choice = Literal["auto", "kvm", "tcg"]
# A guest that works under KVM is ready in two seconds.
PROBE_TIMEOUT = 20.0


@dataclass(frozen=True, slots=True)
class Accel:
    """The accelerator to use. ``why``: why it is not the faster one ("" if it is)."""

    name: AccelName
    why: str = ""


def choose(
    choice: Choice,
    emulator: Emulator,
    cache: Cache,
    *,
    possible: bool,
    boot: Callable[[AccelName, float], None],
    progress: Progress,
) -> Accel:
    """Pick the accelerator. ``boot`` boots a guest under one, within a time, or raises.

    ``possible`` false: the guest's architecture is not the host's, or there is no /dev/kvm.
    Raises ConfigError when kvm was demanded and cannot be.
    """
    if choice == "tcg":
        return Accel("tcg")
    why = "" if possible else _impossible(emulator)
    if not why:
        why = _remembered_probe(emulator, cache, boot, progress)
    if not why:
        return Accel("kvm")
    if choice == "kvm":
        raise ConfigError(
            "--hil-accel=kvm", f"KVM cannot be used here: {why}", mend="use --hil-accel=auto or tcg"
        )
    return Accel("tcg", why)


def _impossible(emulator: Emulator) -> str:
    if "kvm" not in emulator.accels:
        return f"{emulator.binary.name} is built without it"
    if not Path("/dev/kvm").exists():
        return "there is no /dev/kvm"
    return f"this host is {platform.machine()}, the guest {emulator.arch}"


def _remembered_probe(
    emulator: Emulator, cache: Cache, boot: Callable[[AccelName, float], None], progress: Progress
) -> str:
    """Why a guest does not boot under KVM; "" if it does."""
    try:
        with Path("/dev/kvm").open("rb+", buffering=0):
            pass
    except OSError as error:
        # Not remembered: the next run may be by somebody who is allowed to.
        return f"/dev/kvm: {error.strerror}"
    host = f"{platform.release()} {platform.version()} {emulator.fingerprint} {cpu_model()}"
    key = hashlib.sha256(host.encode()).hexdigest()[:24]

    def probe() -> dict[str, Any]:
        progress("trying whether KVM works here (once per host and QEMU)")
        try:
            boot("kvm", PROBE_TIMEOUT)
        except NoRoom:
            raise  # says nothing about KVM
        except InfrastructureError as error:
            return {"why": _short(error)}
        return {"why": ""}

    return str(cache.remember("accel", key, probe, progress=progress)["why"])


def _short(error: InfrastructureError) -> str:
    """The telling line of an error that may be a page long."""
    lines = [line.strip() for line in str(error).splitlines()]
    qemu = next((line for line in lines if "error:" in line or "failed" in line.lower()), "")
    # What follows in a page is not shown in a line.
    return qemu or lines[0].removesuffix("; the console's last lines:")


def cpu_model() -> str:
    """The host's processor: what a guest under KVM sees."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    return next((line for line in text.splitlines() if line.startswith("model name")), "")
