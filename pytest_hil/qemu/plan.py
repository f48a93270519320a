"""What was asked for → the hardware that answers it, with every default filled in."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.cache import Cache
from pytest_hil.config import Config, DebianImage, QemuTarget, host_arch, image_spec
from pytest_hil.errors import ConfigError
from pytest_hil.progress import Progress
from pytest_hil.qemu import emulator, features, overlay
from pytest_hil.qemu.emulator import Emulator
from pytest_hil.qemu.hardware import AccelName, Disk, Hardware, family
from pytest_hil.qemu.image import Image, resolve

_MACHINE = {"x86_64": "q35", "aarch64": "virt", "arm": "virt", "riscv64": "virt"}
_CPU = {
    # pauth by its architected algorithm costs a third of all time under emulation.
    ("aarch64", "tcg"): "max,pauth-impdef=on",
    # Copying with "rep movsb", which ERMS recommends, is done byte by byte under emulation: without
    # it guests copy two to three times as fast.
    ("x86_64", "tcg"): "max,-erms",
    ("arm", "tcg"): "max",
    ("riscv64", "tcg"): "",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """All that is known of a machine before it is started.

    ``key`` changes with every byte of what boots; ``own_image``: our initramfs, with its fixed
    ready line. ``warnings``: what works, but not as somebody may expect.
    """

    target: QemuTarget
    hardware: Hardware
    image_key: str
    image_name: str
    emulator: Emulator
    own_image: bool
    kernel_config: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def can_save(self) -> bool:
        """Whether its state can be saved and cloned."""
        return self.hardware.agent and self.hardware.has_pci


def make(
    target: QemuTarget, config: Config, cache: Cache, *, accel: AccelName, progress: Progress
) -> Plan:
    """Resolve a target; builds or fetches its image when that is missing.

    Raises ConfigError, ImageError, ToolMissing, MachineError.
    """
    qemu = emulator.find(target.arch, cache)
    machine = qemu.machine(target.machine or _MACHINE.get(target.arch, "virt"))
    spec = image_spec(target, config)
    image = resolve(spec, arch=target.arch, cache=cache, progress=progress)
    has_bus = family(machine) in ("q35", "virt")
    agent = target.agent and image.agent
    if agent and not has_bus:
        raise ConfigError(
            f"{config.source}: the target {target.name}'s machine",
            f"pytest-hil's agent has no place in the machine {machine}",
            mend=f'write machine = "{_MACHINE.get(target.arch, "virt")}", or agent = false',
        )
    if any(word.lstrip("-") == "daemonize" for word in target.extra_args):
        raise ConfigError(
            f"{config.source}: the target {target.name}'s extra_args",
            "-daemonize would make a QEMU that nobody ends",
            mend="remove it; `pytest-hil vm start` keeps a machine running",
        )
    if image.disks and not has_bus:
        raise ConfigError(
            f"{config.source}: the target {target.name}'s disk",
            f"the machine {machine} has no bus that a disk could sit on",
        )
    network = target.network if has_bus else "none"
    own_image = agent and isinstance(spec, DebianImage)
    hardware = Hardware(
        name=target.name,
        arch=target.arch,
        binary=qemu.binary,
        machine=machine,
        accel=accel,
        cpu=target.cpu or ("host" if accel == "kvm" else _default_cpu(target.arch, has_bus)),
        smp=target.smp,
        # A bare-metal board has the memory that it has: QEMU refuses any other.
        memory=target.memory if has_bus else None,
        kernel=image.kernel,
        initrd=image.initrd,
        append=_append(image, target),
        disks=tuple(Disk(path, overlay.probe_format(path)) for path in image.disks),
        network=network,
        forwards=target.forwards,
        agent=agent,
        extra_args=target.extra_args,
        usb=features.has_usb(target, agent=agent, own_image=own_image, network=network != "none"),
    )
    return Plan(
        target=target,
        hardware=hardware,
        image_key=image.key,
        image_name=image.name,
        emulator=qemu,
        own_image=own_image,
        kernel_config=image.config,
        warnings=_warnings(target, machine, has_bus=has_bus),
    )


def can_accelerate(target: QemuTarget) -> bool:
    """Whether anything but emulation comes into question."""
    return target.arch == host_arch() and Path("/dev/kvm").exists()


def _default_cpu(arch: str, has_bus: bool) -> str:
    return _CPU.get((arch, "tcg"), "") if has_bus else ""


def _append(image: Image, target: QemuTarget) -> str:
    if image.kernel is None:
        return ""
    return " ".join(part for part in (image.append, target.append) if part)


def _warnings(target: QemuTarget, machine: str, *, has_bus: bool) -> tuple[str, ...]:
    found = []
    cpus = os.cpu_count() or 1
    if target.smp > cpus:
        found.append(
            f"the target {target.name} has {target.smp} processors, this host {cpus}: "
            "it will be slow, and its kernel may complain of stalls"
        )
    if not has_bus and target.memory != QemuTarget("", "").memory:
        found.append(
            f"the target {target.name}'s memory = is not used: a machine {machine} has its own size"
        )
    return tuple(found)
