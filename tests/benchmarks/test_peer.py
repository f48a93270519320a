"""The peer boots the very machine that ours does."""

from __future__ import annotations

import shlex
from pathlib import Path

from pytest_hil.qemu import cmdline
from pytest_hil.qemu.hardware import Hardware, Memory, Wiring
from tests.benchmarks import peer

HARDWARE = Hardware(
    name="qemu",
    arch="x86_64",
    binary=Path("/usr/bin/qemu-system-x86_64"),
    machine="pc-q35-7.2",
    accel="tcg",
    cpu="max",
    smp=1,
    memory=256 * 2**20,
    kernel=Path("/images/vmlinux of mine"),
    initrd=Path("/images/initrd of mine"),
    append="console=ttyS0 rdinit=/init",
    disks=(),
    network="isolated",
    forwards=(),
    agent=True,
    extra_args=(),
)

# Either side's own: names, and the channels between it and QEMU.
CHANNELS = {"-name", "-display", "-chardev", "-mon", "-serial"}


def pairs(argv: list[str]) -> set[tuple[str, str]]:
    """(option, value) of a command line, and (option, "") of one that has no value."""
    found = set()
    words = list(argv)
    while words:
        option = words.pop(0)
        value = words.pop(0) if words and not words[0].startswith("-") else ""
        if option not in CHANNELS:
            found.add((option, value))
    return found


def labgrids_argv(settings: dict[str, str], images: dict[str, str]) -> list[str]:
    """As QEMUDriver.get_qemu_base_args() of labgrid 26.0.1 puts it together."""
    return [
        *("-kernel", images[settings["kernel"]]),
        *shlex.split(settings["extra_args"]),
        *("-machine", settings["machine"]),
        *("-cpu", settings["cpu"]),
        *("-m", settings["memory"]),
        *("-append", settings["boot_args"]),
    ]


def test_it_has_the_same_hardware_kernel_and_memory() -> None:
    ours = cmdline.argv(HARDWARE, Wiring(console=0, monitor=0, agent=0, memory=Memory()))
    made = peer.configuration(HARDWARE, Path("/scratch/qemu"))
    settings = made["targets"]["main"]["drivers"][0]["QEMUDriver"]
    assert pairs(labgrids_argv(settings, made["images"])) == pairs(ours[1:])


def test_what_it_gives_by_itself_is_given_once() -> None:
    made = peer.configuration(HARDWARE, Path("/scratch/qemu"))
    extra = shlex.split(made["targets"]["main"]["drivers"][0]["QEMUDriver"]["extra_args"])
    assert not {"-kernel", "-machine", "-cpu", "-m", "-append", "-qmp", "-serial"} & set(extra)
    assert extra.count("-chardev") == 1
