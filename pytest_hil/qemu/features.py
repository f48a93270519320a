"""What a machine is able to do, and what can be said of that before there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_hil.config import Config, DebianImage, QemuTarget, host_arch, image_spec
from pytest_hil.qemu.hardware import family

if TYPE_CHECKING:
    from pytest_hil.qemu.plan import Plan

_WITH_BUS = ("q35", "virt")


def certain(target: QemuTarget, config: Config) -> frozenset[str]:
    """The features that it has for sure: all but its accelerator, which only a boot tells.

    Raises ConfigError when the target does not fit together or its files are missing.
    """
    spec = image_spec(target, config)
    has_bus = not target.machine or family(target.machine) in _WITH_BUS
    agent = target.agent and has_bus and (isinstance(spec, DebianImage) or spec.agent)
    own_image = agent and isinstance(spec, DebianImage)
    network = has_bus and target.network != "none"
    usb = has_usb(target, agent=agent, own_image=own_image, network=network)
    return _words(target.arch, agent=agent, usb=usb, network=network) | target.features


def possible(target: QemuTarget, config: Config) -> frozenset[str]:
    """:func:`certain`, and the accelerators that come into question."""
    accels = {"tcg", "kvm"} if target.arch == host_arch() else {"tcg"}
    return certain(target, config) | accels


def of(plan: Plan) -> frozenset[str]:
    """The features of a plan's machines."""
    hardware = plan.hardware
    network = hardware.network != "none"
    words = _words(hardware.arch, agent=hardware.agent, usb=hardware.usb, network=network)
    return words | {hardware.accel} | plan.target.features


def has_usb(target: QemuTarget, *, agent: bool, own_image: bool, network: bool) -> bool:
    """Whether USB devices can be attached: over the network, by the guest's own usbip.

    Our image has all that is needed; of another, the target's ``features`` may say so.
    """
    return agent and network and (own_image or "usb" in target.features)


def _words(arch: str, *, agent: bool, usb: bool, network: bool) -> frozenset[str]:
    found = {"console", "power", arch}
    if agent:
        found |= {"shell", "files", "snapshot"}
    if usb:
        found.add("usb")
    if network:
        found.add("network")
    return frozenset(found)
