"""The host: its accelerator, memory, disks, and what of ours is on them."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from pathlib import Path

from pytest_hil import config
from pytest_hil.bench import Bench, Settings
from pytest_hil.cache import Cache
from pytest_hil.cli import choice, leftovers
from pytest_hil.cli.checks.check import Finding, note, ok, problem
from pytest_hil.config import BUILTIN_IMAGE, BUILTIN_TARGET, MiB, host_arch
from pytest_hil.errors import ToolMissing
from pytest_hil.progress import Progress
from pytest_hil.qemu import runtime, template
from pytest_hil.qemu.image import stored
from pytest_hil.qemu.room import Room, default_budget, host_memory

GiB = 2**30
_LITTLE_DISK = 2 * GiB
_NO_DISK = 300 * MiB
_MACHINE = 256 * MiB


def accelerator(progress: Progress) -> Finding:
    """Found out by booting under it, the first time on a host."""
    kvm = Path("/dev/kvm")
    usable = kvm.exists() and os.access(kvm, os.R_OK | os.W_OK)
    if usable and not _has_image():
        return note(
            "/dev/kvm is there; whether it works is not known before something was booted",
            "build the image, and ask again: pytest-hil image build",
        )
    with Bench(Settings(root=Path.cwd()), progress=progress) as bench:
        try:
            found = bench.accel(config.QemuTarget(BUILTIN_TARGET, arch=host_arch()))
        except ToolMissing as error:
            return note(f"not known: {error.message}")
    if found.name == "kvm":
        return ok("KVM works", accel="kvm")
    why = found.why or "the host's processor is none that could do it"
    mend = ""
    if "Permission denied" in why:
        mend = "usermod -aG kvm $USER (as root), and log in again"
    elif not kvm.exists():
        mend = "where there is hardware for it, load the module: modprobe kvm_intel or kvm_amd"
    text = f"emulation (TCG): it works everywhere, several times slower; KVM: {why}"
    return note(text, mend, accel="tcg", why=why)


def memory() -> Finding:
    """How many machines may live at once."""
    asked = choice.memory_budget()
    budget = default_budget() if asked is None else asked
    living = Room(budget).occupants()
    used = sum(one.memory for one in living)
    free = _available()
    facts = {"host": host_memory(), "budget": budget, "used": used, "available": free}
    text = (
        f"{budget // MiB} of {host_memory() // MiB} MB for machines: "
        f"{budget // _MACHINE} of {_MACHINE // MiB} MB at once"
    )
    if living:
        text += f"; {len(living)} live now"
    if budget < _MACHINE:
        return problem(text, "machines of 256 MB do not fit: PYTEST_HIL_MEMORY_BUDGET=…", **facts)
    if free is not None and free < min(budget - used, 2 * _MACHINE):
        return note(f"{text}; only {free // MiB} MB are free", "end what takes it", **facts)
    return ok(text, **facts)


def disk() -> Finding:
    """Room for images and templates, for overlays, for artifacts."""
    places = {
        "cache": Cache.default().root,
        "temporary files": Path(tempfile.gettempdir()),
        "artifacts": Path.cwd(),
    }
    free = {name: shutil.disk_usage(_existing(path)).free for name, path in places.items()}
    by_device: dict[int, list[str]] = {}
    for name, path in places.items():
        by_device.setdefault(_existing(path).stat().st_dev, []).append(name)
    text = "; ".join(
        f"{free[names[0]] / GiB:.1f} GB free for {', '.join(names)}" for names in by_device.values()
    )
    tightest = min(free.values())
    mend = "free some (`pytest-hil clean --all`), or use PYTEST_HIL_CACHE=DIR, TMPDIR=DIR"
    if tightest < _NO_DISK:
        return problem(text, mend, **free)
    return note(text, mend, **free) if tightest < _LITTLE_DISK else ok(text, **free)


def runtime_directory() -> Finding:
    """Where live machines keep what lives as long as they do."""
    path = runtime.base()
    with tempfile.NamedTemporaryFile(dir=path):
        return ok(f"{path}, nobody else's", path=str(path))


def cache() -> Finding:
    """What is in the cache, and whether more can go there."""
    found = Cache.default()
    writable = _existing(found.root)
    if not writable.is_dir() or not os.access(writable, os.W_OK | os.X_OK):
        return problem(
            f"{found.root} cannot be written", "make it writable, or use PYTEST_HIL_CACHE=DIR"
        )
    images, templates = stored.stored(found), found.entries(template.KIND)
    sizes = {
        "images": sum(one.entry.size for one in images),
        "templates": sum(one.size for one in templates),
    }
    text = (
        f"{found.root}: {len(images)} images ({sizes['images'] / 1e6:.0f} MB), "
        f"{len(templates)} templates ({sizes['templates'] / 1e6:.0f} MB)"
    )
    old = [one for one in templates if time.time() - one.used > 7 * 86400]
    if old:
        text += f", {len(old)} of them unused for a week"
        return ok(f"{text} (`pytest-hil clean`)", path=str(found.root), **sizes)
    return ok(text, path=str(found.root), **sizes)


def image() -> Finding:
    """The default image, without which the first test waits for its build."""
    if _has_image():
        return ok(f"{BUILTIN_IMAGE} for {host_arch()} is in the cache")
    return note(
        f"{BUILTIN_IMAGE} for {host_arch()} is not built yet: the first run does it",
        "pytest-hil image build (it fetches about 70 MB)",
    )


def boards() -> Finding:
    """The boards.toml of this directory. Raises ConfigError with all that is wrong in it."""
    found = config.load(None, root=Path.cwd())
    if found.path is None:
        return ok(f"none here: there is the target {', '.join(found.targets)}")
    return ok(
        f"{found.path}: targets {', '.join(sorted(found.targets))}", targets=sorted(found.targets)
    )


def left_behind() -> Finding:
    """What killed runs left."""
    found = leftovers.find()
    if not found:
        return ok("nothing")
    parts = (
        (len(found.machines), "machines without a run"),
        (len(found.directories), f"directories ({found.size / 1e6:.0f} MB)"),
        (len(found.died), "machines that died (`pytest-hil vm list` says why)"),
    )
    text = ", ".join(f"{count} {what}" for count, what in parts if count)
    return note(text, "pytest-hil clean", directories=[str(path) for path, _ in found.directories])


def _has_image() -> bool:
    return any(
        one.name == BUILTIN_IMAGE and one.arch == host_arch() and one.manifest is not None
        for one in stored.stored(Cache.default())
    )


def _existing(path: Path) -> Path:
    """The path, or the nearest directory above that is there."""
    return next(each for each in (path, *path.parents) if each.exists())


def _available() -> int | None:
    """The memory that could be had now, in bytes."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        line = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(line.split()[1]) * 1024
    return None
