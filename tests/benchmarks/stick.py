"""A stick in a guest: ours over USB/IP, the peer QEMU's own usb-storage on xhci, the same content.

Read from its beginning to its end, 256 KiB a command (the kernel's readahead; its page cache of a
disk ends with the last program that has it open). Beside it two ceilings of ours, as measured in
the same guest: what the protocol would do if data took no time at all (each command is three
transfers, one after the other), and what the guest's emulated network carries by itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace

from pytest_hil.bench import Bench
from pytest_hil.qemu.guest import Guest
from pytest_hil.usbip.virtual.mass_storage import MassStorage
from tests.benchmarks.context import Context
from tests.benchmarks.result import Line, at_least, line

MiB = 2**20
SIZE = 64 * MiB
READAHEAD = MiB // 4
BOARDS = """
[image.stick]
modules = ["xhci-pci"]

[target.stick]
backend = "qemu"
image = "stick"
network = "open"
extra_args = [
  "-device", "qemu-xhci,id=xhci,addr=0x9",
  "-drive", "if=none,id=stick,format=raw,file={image},readonly=on",
  "-device", "usb-storage,bus=xhci.0,drive=stick",
]
"""

# usb-storage lets a disk settle for a second (its parameter delay_use) before it looks at it.
_PLUGGED = "until [ -b /dev/sda ]; do usleep 20000; done"


def measure(context: Context) -> list[Line]:
    rounds = context.times(11, 3)
    content = os.urandom(SIZE)
    image = context.scratch / "stick.img"
    image.write_bytes(content)
    boards = context.scratch / "boards.toml"
    boards.write_text(BOARDS.format(image=image))
    settings = replace(context.bench.settings, boards=boards)
    ours: list[float] = []
    theirs: list[float] = []
    network: list[float] = []
    small: list[float] = []
    with contextlib.ExitStack() as stack:
        bench = stack.enter_context(Bench(settings, progress=context.tell))
        guest = stack.enter_context(contextlib.closing(bench.open(bench.target("stick"))))
        port = stack.enter_context(_source())
        guest.run(_PLUGGED, timeout=60)
        node = guest.usb.attach(MassStorage(content, read_only=True)).node("sd")
        for number in range(-1, rounds):
            context.tell(f"stick: {number + 1} of {rounds}")
            ours.append(_read(guest, node))
            theirs.append(_read(guest, "/dev/sda"))
            network.append(_network(guest, port))
            small.append(_small(guest, node))
    protocol = [READAHEAD / MiB / seconds for seconds in small[1:]]
    ours, theirs, network = ours[1:], theirs[1:], network[1:]
    return [
        line("stick", ours, "MB/s", at_least(0.7, "ratio"), peer=theirs, more_is_better=True),
        line("stick-protocol", ours, "MB/s", peer=protocol, more_is_better=True),
        line("stick-network", ours, "MB/s", peer=network, more_is_better=True),
    ]


def _read(guest: Guest, node: str) -> float:
    """MiB a second of the whole stick."""
    guest.run(f"blockdev --setra {READAHEAD // 512} {node}")
    done = guest.run(f"dd if={node} of=/dev/null bs=1M", timeout=120)
    return SIZE / MiB / done.duration


def _small(guest: Guest, node: str) -> float:
    """Seconds of a command that reads one page: its round trips, and nearly no data."""
    count = 200
    guest.run(f"blockdev --setra 0 {node}")
    done = guest.run(f"dd if={node} of=/dev/null bs=4096 count={count}", timeout=60)
    return done.duration / count


def _network(guest: Guest, port: int) -> float:
    """MiB a second through a TCP connection that nobody does anything with."""
    done = guest.run(f"nc 10.0.2.2 {port} < /dev/null > /dev/null", timeout=120)
    return SIZE / MiB / done.duration


@contextlib.contextmanager
def _source() -> Iterator[int]:
    """A port of this host that sends as much as a stick has to everybody who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            data = bytes(MiB)
            while True:
                try:
                    peer, _ = server.accept()
                except OSError:
                    return
                with peer, contextlib.suppress(OSError):
                    for _ in range(SIZE // MiB):
                        peer.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(10)
