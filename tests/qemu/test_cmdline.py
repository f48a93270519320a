"""The command line is a pure function: it is read here, and tried by every machine test."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.config import Forward
from pytest_hil.qemu import cmdline
from pytest_hil.qemu.hardware import Disk, Hardware, Memory, Wiring, family

HARDWARE = Hardware(
    name="box",
    arch="x86_64",
    binary=Path("/usr/bin/qemu-system-x86_64"),
    machine="pc-q35-7.2",
    accel="tcg",
    cpu="max",
    smp=1,
    memory=256 * 2**20,
    kernel=Path("/k"),
    initrd=Path("/i"),
    append="console=ttyS0",
    disks=(),
    network="isolated",
    forwards=(),
    agent=True,
    extra_args=(),
)
WIRING = Wiring(console=10, monitor=11, agent=12, memory=Memory())


def after(argv: list[str], option: str) -> list[str]:
    """The values of an option."""
    return [argv[n + 1] for n, word in enumerate(argv[:-1]) if word == option]


def test_the_console_is_the_serial_line_and_nothing_else() -> None:
    argv = cmdline.argv(HARDWARE, WIRING)
    assert after(argv, "-serial") == ["chardev:console"]
    assert "socket,id=console,fd=10" in after(argv, "-chardev")
    assert after(argv, "-mon") == ["chardev=qmp,mode=control"]


def test_the_network_is_closed_unless_asked() -> None:
    assert after(cmdline.argv(HARDWARE, WIRING), "-netdev") == ["user,id=net,restrict=on"]
    opened = cmdline.argv(replace(HARDWARE, network="open"), WIRING)
    assert after(opened, "-netdev") == ["user,id=net"]
    none = cmdline.argv(replace(HARDWARE, network="none"), WIRING)
    assert after(none, "-netdev") == []


def test_forwards_are_on_loopback_and_ports_that_the_kernel_picks() -> None:
    hardware = replace(HARDWARE, forwards=(Forward(22), Forward(53, "udp")))
    (netdev,) = after(cmdline.argv(hardware, WIRING), "-netdev")
    assert "hostfwd=tcp:127.0.0.1:0-:22" in netdev
    assert "hostfwd=udp:127.0.0.1:0-:53" in netdev
    assert "restrict=on" in netdev


def test_memory_is_private_to_a_clone_and_shared_by_a_template() -> None:
    def backend(memory: Memory) -> str:
        return after(cmdline.argv(HARDWARE, replace(WIRING, memory=memory)), "-object")[0]

    assert backend(Memory()).startswith("memory-backend-ram")
    assert backend(Memory("/m", shared=True)).endswith("mem-path=/m,share=on")
    assert backend(Memory("/m", shared=False)).endswith("mem-path=/m,share=off")


def test_a_comma_in_a_path_stays_in_the_path() -> None:
    argv = cmdline.argv(HARDWARE, replace(WIRING, memory=Memory("/a,b")))
    assert "mem-path=/a,,b," in after(argv, "-object")[0]


def test_every_device_has_an_address_of_its_own() -> None:
    hardware = replace(
        HARDWARE, disks=tuple(Disk(Path(f"/d{n}"), "raw") for n in range(cmdline.MAX_DISKS))
    )
    wiring = replace(WIRING, overlays=tuple(Path(f"/o{n}") for n in range(cmdline.MAX_DISKS)))
    devices = [d for d in after(cmdline.argv(hardware, wiring), "-device") if "-pci" in d]
    slots = [word for d in devices for word in d.split(",") if word.startswith("addr=")]
    assert len(slots) == len(devices) == len(set(slots))


def test_a_disk_more_moves_no_other_device() -> None:
    one = replace(HARDWARE, disks=(Disk(Path("/a"), "raw"),))
    two = replace(HARDWARE, disks=(Disk(Path("/a"), "raw"), Disk(Path("/b"), "raw")))
    first = cmdline.argv(one, replace(WIRING, overlays=(Path("/x"),)))
    second = cmdline.argv(two, replace(WIRING, overlays=(Path("/x"), Path("/y"))))
    assert set(after(first, "-device")) < set(after(second, "-device"))


def test_bare_metal_has_a_console_a_monitor_and_nothing_of_ours() -> None:
    bare = replace(
        HARDWARE, machine="mps2-an385", memory=None, agent=False, cpu="", append="", initrd=None
    )
    argv = cmdline.argv(bare, replace(WIRING, agent=None))
    assert after(argv, "-device") == after(argv, "-object") == after(argv, "-m") == []
    assert after(argv, "-kernel") == ["/k"]


def test_extra_arguments_come_last() -> None:
    argv = cmdline.argv(replace(HARDWARE, extra_args=("-cpu", "host")), WIRING)
    assert argv[-2:] == ["-cpu", "host"]


def test_the_door_to_usb_devices() -> None:
    hardware = replace(HARDWARE, usb=True)
    wiring = replace(WIRING, usb="python 'a b,c' name")
    (netdev,) = after(cmdline.argv(hardware, wiring), "-netdev")
    assert netdev == (
        "user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:3240-cmd:python 'a b,,c' name"
    )
    # What names this very machine is not part of what its kind is known by.
    assert "name" not in str(after(cmdline.fingerprint(hardware), "-netdev"))
    assert str(cmdline.fingerprint(hardware)).count("guestfwd") == 1
    assert "guestfwd" not in str(cmdline.fingerprint(HARDWARE))


@given(
    console=st.integers(3, 1000),
    agent=st.integers(3, 1000),
    path=st.text(min_size=1).filter(lambda text: "\0" not in text),
)
def test_the_fingerprint_knows_no_wiring(console: int, agent: int, path: str) -> None:
    wiring = Wiring(console, 5, agent, Memory(path), incoming=True)
    cmdline.argv(HARDWARE, wiring)
    assert cmdline.fingerprint(HARDWARE) == cmdline.fingerprint(replace(HARDWARE))


@pytest.mark.parametrize(
    ("machine", "wanted"),
    [
        ("q35", "q35"),
        ("pc-q35-7.2", "q35"),
        ("virt-9.1,secure=on", "virt"),
        ("virt", "virt"),
        ("virtual", "virtual"),
        ("mps2-an385", "mps2-an385"),
    ],
)
def test_families(machine: str, wanted: str) -> None:
    assert family(machine) == wanted


def test_forwarded_ports_are_read_from_the_monitor() -> None:
    # The columns of slirp's connection_info.
    text = (
        "Hub 0 (net):\n"
        "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
        "  TCP[HOST_FORWARD]  14       127.0.0.1 40023       10.0.2.15    22     0     0\n"
        "  UDP[HOST_FORWARD]  15       127.0.0.1 40024       10.0.2.15    53     0     0\n"
        "  TCP[ESTABLISHED]   16       127.0.0.1 40025       10.0.2.15    22     0     0\n"
    )
    assert cmdline.forwarded_ports(text) == [("tcp", 40023, 22), ("udp", 40024, 53)]
