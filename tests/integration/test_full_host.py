"""A host with no room for one more: in memory, or of open files."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import MachineError, NoMemory
from pytest_hil.qemu.machine import OVERHEAD

pytestmark = pytest.mark.machine

MiB = 2**20
ONE = 256 * MiB + OVERHEAD


@pytest.fixture(autouse=True)
def own_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The machines of other runs do not count."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[Bench]:
    """A bench with room for one machine, and for a QEMU that needs no memory."""
    settings = Settings(
        root=tmp_path, accel="tcg", memory_budget=ONE + OVERHEAD + MiB, room_timeout=0.5
    )
    with Bench(settings) as made:
        yield made


def test_a_machine_can_be_saved_and_restored_where_there_is_room_for_one(crowded: Bench) -> None:
    guest = crowded.open(crowded.target("qemu"))
    guest.run("echo saved > /state")
    saved = guest.snapshot()
    guest.run("echo later > /state")
    guest.restore(saved)
    assert guest.run("cat /state").stdout == "saved\n"


def test_no_room_is_all_that_is_said(crowded: Bench, caplog: pytest.LogCaptureFixture) -> None:
    crowded.open(crowded.target("qemu"))
    with caplog.at_level(logging.WARNING), pytest.raises(NoMemory):
        crowded.open(crowded.target("qemu"))
    assert caplog.text == ""


def test_the_machine_that_is_being_made_ready_gives_way_at_once(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, accel="tcg", memory_budget=2 * ONE + 20 * MiB)
    with Bench(settings) as bench:
        wanted, other = bench.target("qemu"), bench.target("qemu", memory="257M")
        bench.open(other).close()  # its template is there
        bench.open(wanted)
        bench.prepare(wanted, ahead=2)  # there is room for one of them
        deadline = time.monotonic() + 10
        while len(bench.room.occupants()) < 2 and time.monotonic() < deadline:
            pass
        began = time.monotonic()
        bench.open(other)
        assert time.monotonic() - began < 5


def test_a_machine_that_cannot_be_switched_on_keeps_its_disk(
    bench: Bench, crowded: Bench, tmp_path: Path
) -> None:
    image = bench.plan(bench.target("qemu")).hardware
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    target = crowded.target(
        "qemu",
        kernel=str(image.kernel),
        initrd=str(image.initrd),
        append=image.append,
        disk=str(disk),
        agent=True,
    )
    guest = crowded.open(target)
    guest.run("dd of=/dev/vda conv=fsync,notrunc 2>/dev/null", input="durable!")
    guest.power.off()
    other = crowded.open(crowded.target("qemu"))
    with pytest.raises(NoMemory):
        guest.power.on()
    other.close()
    guest.power.on()
    assert guest.run("head -c 8 /dev/vda").stdout == "durable!"


@contextlib.contextmanager
def only_descriptors(free: int) -> Iterator[None]:
    """Leave this process so many descriptors to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(path.name) for path in Path("/proc/self/fd").iterdir())
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1 + free, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(free):
            os.close(taken.pop())
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for number in taken:
            os.close(number)


@pytest.mark.parametrize("free", [1, 3, 5, 8])
def test_too_few_open_files_cost_no_template(bench: Bench, free: int) -> None:
    target = bench.target("qemu")
    bench.open(target).close()
    with only_descriptors(free), pytest.raises(MachineError, match="ulimit -n"):
        bench.open(target)
    guest = bench.open(target)
    assert guest.origin.how == "clone"
    guest.close()
