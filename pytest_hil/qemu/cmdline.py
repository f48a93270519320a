"""Hardware and wiring → QEMU's command line. Pure: no file, no process, no clock.

Every device has an address of its own: a saved state loads only into the same
devices at the same addresses, and QEMU's own choice changes with what stands
before it.
"""

from __future__ import annotations

import re
from pathlib import Path

from pytest_hil.qemu.hardware import (
    AGENT_PORT,
    USB_ADDRESS,
    USB_PORT,
    Hardware,
    Memory,
    Wiring,
    family,
)

# PCI slots. The first disk is at 0x10, so that a device added below moves no disk.
_SLOT_SERIAL = 0x2
_SLOT_NET = 0x3
_SLOT_PANIC = 0x4
_SLOT_RNG = 0x5
_SLOT_FIRST_DISK = 0x10
MAX_DISKS = 8


def argv(hardware: Hardware, wiring: Wiring) -> list[str]:
    """QEMU's argv for one machine."""
    out = [
        str(hardware.binary),
        "-nodefaults",
        "-no-user-config",
        "-name",
        _escape(hardware.name),
        "-display",
        "none",
        # The kernel says "end Kernel panic" after pvpanic was told: let it. The event reaches us.
        "-action",
        "panic=none",
        *_machine(hardware, wiring),
        *_boot(hardware),
        *_channel("qmp", wiring.monitor),
        "-mon",
        "chardev=qmp,mode=control",
        *_channel("console", wiring.console),
        "-serial",
        "chardev:console",
    ]
    if hardware.has_pci:
        out += _virtio(hardware, wiring)
    if wiring.incoming:
        out += ["-incoming", "defer"]
    return out + list(hardware.extra_args)


def fingerprint(hardware: Hardware) -> list[str]:
    """The argv with nothing in it that differs between two machines of the same hardware."""
    agent = 2 if hardware.agent else None
    overlays = tuple(Path(f"/overlay{n}") for n in range(len(hardware.disks)))
    usb = "usb" if hardware.usb else ""
    return argv(hardware, Wiring(0, 1, agent, Memory("/memory"), overlays, usb=usb))


def _machine(hardware: Hardware, wiring: Wiring) -> list[str]:
    options = [hardware.machine]
    out: list[str] = []
    if hardware.memory is not None and hardware.has_pci:
        out += ["-object", _memory_backend(hardware.memory, wiring)]
        options.append("memory-backend=ram")
    if family(hardware.machine) == "q35":
        # Nothing that a test needs, and each costs time at boot and at every clone.
        options += ["vmport=off", "smm=off", "sata=off", "usb=off", "graphics=off", "i8042=off"]
    out += ["-machine", ",".join(options), "-accel", hardware.accel]
    if hardware.cpu:
        out += ["-cpu", hardware.cpu]
    if hardware.memory is not None:
        out += ["-m", f"{hardware.memory // 2**20}M"]
    if hardware.smp != 1:
        out += ["-smp", str(hardware.smp)]
    return out


def _memory_backend(size: int, wiring: Wiring) -> str:
    memory = wiring.memory
    if memory.path is None:
        return f"memory-backend-ram,id=ram,size={size}"
    share = "on" if memory.shared else "off"
    return f"memory-backend-file,id=ram,size={size},mem-path={_escape(memory.path)},share={share}"


def _boot(hardware: Hardware) -> list[str]:
    out: list[str] = []
    if hardware.kernel is not None:
        out += ["-kernel", str(hardware.kernel)]
    if hardware.initrd is not None:
        out += ["-initrd", str(hardware.initrd)]
    if hardware.append:
        out += ["-append", hardware.append]
    return out


def _channel(name: str, fd: int) -> list[str]:
    return ["-chardev", f"socket,id={name},fd={fd}"]


def _virtio(hardware: Hardware, wiring: Wiring) -> list[str]:
    out = ["-device", f"virtio-serial-pci,id=serial,addr={_SLOT_SERIAL:#x},max_ports=4"]
    if wiring.agent is not None:
        out += _channel("agent", wiring.agent)
        out += [
            "-device",
            f"virtserialport,bus=serial.0,nr=1,chardev=agent,name={AGENT_PORT}",
        ]
    out += _network(hardware, wiring)
    out += ["-device", f"pvpanic-pci,addr={_SLOT_PANIC:#x}"]
    out += ["-object", "rng-random,id=rng,filename=/dev/urandom"]
    out += ["-device", f"virtio-rng-pci,rng=rng,addr={_SLOT_RNG:#x}"]
    if family(hardware.machine) == "q35":
        # Tells kernels that have the driver that they were cloned; the agent tells all of them.
        out += ["-device", "vmgenid,guid=auto"]
    for number, overlay in enumerate(wiring.overlays):
        out += _disk(number, overlay)
    return out


def _network(hardware: Hardware, wiring: Wiring) -> list[str]:
    if hardware.network == "none":
        return []
    options = ["user", "id=net"]
    if hardware.network == "isolated":
        options.append("restrict=on")
    # Port 0: the kernel picks; the monitor's "info usernet" says which it was.
    options += [
        f"hostfwd={forward.protocol}:127.0.0.1:0-:{forward.guest_port}"
        for forward in hardware.forwards
    ]
    # Open to the guest in a restricted network, too (docs of libslirp's SlirpConfig, restricted).
    if wiring.usb:
        options.append(f"guestfwd=tcp:{USB_ADDRESS}:{USB_PORT}-cmd:{_escape(wiring.usb)}")
    # A clone has nobody to announce itself to, and a hundred clones would each take the time.
    device = f"virtio-net-pci,netdev=net,addr={_SLOT_NET:#x},romfile=,guest_announce=off"
    return ["-netdev", ",".join(options), "-device", device]


def _disk(number: int, overlay: Path) -> list[str]:
    slot = _SLOT_FIRST_DISK + number
    node = f"disk{number}"
    return [
        "-blockdev",
        f"driver=qcow2,node-name={node},discard=unmap,"
        f"file.driver=file,file.filename={_escape(str(overlay))}",
        "-device",
        f"virtio-blk-pci,id={node}-dev,drive={node},addr={slot:#x}",
    ]


def _escape(value: str) -> str:
    """A comma ends an option's value in QEMU; two of them mean one."""
    return value.replace(",", ",,")


def forwarded_ports(usernet: str) -> list[tuple[str, int, int]]:
    """(protocol, host port, guest port) from the monitor's ``info usernet`` text."""
    row = re.compile(
        r"^\s*(TCP|UDP)\[HOST_FORWARD\]\s+\d+\s+\S+\s+(\d+)\s+\S+\s+(\d+)\s", re.MULTILINE
    )
    return [(m[1].lower(), int(m[2]), int(m[3])) for m in row.finditer(usernet)]
