"""What a machine will be able to do, as far as it can be said before there is one."""

from __future__ import annotations

from pytest_hil.config import Config, DebianImage, QemuTarget, host_arch, image_spec
from pytest_hil.qemu.hardware import family

_WITH_BUS = ("q35", "virt")


def certain(target: QemuTarget, config: Config) -> frozenset[str]:
    """The features that it has for sure: all but its accelerator, which only a boot tells.

    Raises ConfigError when the target does not fit together or its files are missing.
    """
    spec = image_spec(target, config)
    has_bus = not target.machine or family(target.machine) in _WITH_BUS
    agent = target.agent and has_bus and (isinstance(spec, DebianImage) or spec.agent)
    found = {"console", "power", target.arch}
    if agent:
        found |= {"shell", "files", "snapshot"}
    if agent and isinstance(spec, DebianImage):
        found.add("usb")
    if has_bus and target.network != "none":
        found.add("network")
    return frozenset(found) | target.features


def possible(target: QemuTarget, config: Config) -> frozenset[str]:
    """:func:`certain`, and the accelerators that come into question."""
    accels = {"tcg", "kvm"} if target.arch == host_arch() else {"tcg"}
    return certain(target, config) | accels
