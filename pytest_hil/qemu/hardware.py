"""What a machine is made of, resolved: nothing here is a default or a wish any more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytest_hil.config import Forward

AccelName = Literal["tcg", "kvm"]
DiskFormat = Literal["qcow2", "raw"]


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk image of the user; machines write to an overlay on it, never to it."""

    path: Path
    format: DiskFormat


@dataclass(frozen=True, slots=True)
class Hardware:
    """One machine, down to the address of every device.

    ``binary`` is the absolute path of QEMU; ``machine`` a versioned type such as
    ``pc-q35-7.2`` (the alias changes with QEMU, and a template must not); ``memory`` in
    bytes, None for the machine's own (bare-metal boards have a fixed size); ``usb``: its network
    has a door to our devices.
    """

    name: str
    arch: str
    binary: Path
    machine: str
    accel: AccelName
    cpu: str
    smp: int
    memory: int | None
    kernel: Path | None
    initrd: Path | None
    append: str
    disks: tuple[Disk, ...]
    network: Literal["isolated", "open", "none"]
    forwards: tuple[Forward, ...]
    agent: bool
    extra_args: tuple[str, ...]
    usb: bool = False

    @property
    def has_pci(self) -> bool:
        """Whether our virtio devices have a bus to sit on."""
        return family(self.machine) in ("q35", "virt")


def family(machine: str) -> str:
    """``q35`` for ``pc-q35-7.2``, ``virt`` for ``virt-9.1``, else the type itself."""
    name = machine.partition(",")[0]
    if name == "q35" or name.startswith("pc-q35-"):
        return "q35"
    if name == "virt" or name.startswith("virt-"):
        return "virt"
    return name


@dataclass(frozen=True, slots=True)
class Memory:
    """Where a machine's memory lies.

    ``path`` None: anonymous. ``shared``: what the guest writes goes into the file (a
    template being made); not shared: copy-on-write over it (a clone).
    """

    path: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Wiring:
    """What differs between two machines of the same hardware: descriptors and files.

    ``overlays`` are the qcow2 files to use, one a disk. ``incoming``: do not boot, wait for
    a saved state. ``usb``: what QEMU is to start for a connection through each door to our
    devices, as a shell's words.
    """

    console: int
    monitor: int
    agent: int | None
    memory: Memory
    overlays: tuple[Path, ...] = ()
    incoming: bool = False
    usb: str = ""


# In the guest's network, where nothing else is; QEMU itself answers there (-netdev user,guestfwd=).
USB_ADDRESS = "10.0.2.100"
USB_PORT = 3240

AGENT_PORT = "org.pytest-hil.agent"
