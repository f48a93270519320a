"""What goes wrong outside the code under test: each has its message, and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.bench import Bench, Settings
from pytest_hil.errors import (
    BootTimeout,
    ConfigError,
    Crashed,
    MachineDied,
    MachineError,
    NoRoom,
    OutcomeUnknown,
    ToolMissing,
)
from pytest_hil.qemu import runtime
from pytest_hil.qemu.guest import Guest

pytestmark = pytest.mark.machine

MiB = 2**20


@pytest.fixture(autouse=True)
def nothing_left(bench: Bench) -> Iterator[None]:
    """No machine, descriptor, thread or directory of a test stays."""
    before = _holdings(bench)
    yield
    deadline = time.monotonic() + 5
    while (after := _holdings(bench)) != before and time.monotonic() < deadline:
        threading.Event().wait(0.05)
    assert after == before


def _holdings(bench: Bench) -> dict[str, object]:
    mine = runtime.base() / runtime.owner_name()
    return {
        "machines": [one.name for one in bench.room.occupants() if one.owner == os.getpid()],
        "children": _children(),
        "files": sorted(path.name for path in mine.glob("*/*")) if mine.exists() else [],
        "sockets": sum(1 for fd in _descriptors() if fd.startswith("socket:")),
        "consoles": sum(1 for thread in threading.enumerate() if "console" in thread.name),
    }


def _descriptors() -> list[str]:
    found = []
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.append(str(path.readlink()))
        except FileNotFoundError:
            continue
    return found


def _children() -> list[str]:
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            found.append(Path(f"/proc/{pid}/comm").read_text().strip())
    return sorted(found)


def test_no_qemu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        Bench(Settings(root=tmp_path)) as bench,
        pytest.raises(ToolMissing, match=r"(?s)qemu-system.*apt-get install qemu-system"),
    ):
        bench.open(bench.target("qemu"))


def test_a_qemu_that_exits_at_once(bench: Bench) -> None:
    with pytest.raises(MachineDied, match="bogus") as caught:
        bench.open(bench.target("qemu", extra_args=["-bogus"]))
    assert caught.value.exit_code == 1
    assert "-bogus" in caught.value.argv


def test_a_machine_type_that_does_not_exist(bench: Bench) -> None:
    with pytest.raises(MachineError, match=r"has no machine 'q36'.*q35"):
        bench.open(bench.target("qemu", machine="q36"))


def test_a_machine_in_which_the_agent_has_no_place(bench: Bench) -> None:
    with pytest.raises(ConfigError, match=r'(?s)no place in the machine.*machine = "q35"'):
        bench.open(bench.target("qemu", machine="pc"))


def bench_starting(line: str, root: Path, *, boot_timeout: float = 60) -> Bench:
    """With the target ``odd``, whose image runs this line when it starts."""
    (root / "boards.toml").write_text(
        f"""
        [image.odd]
        startup = ["{line}"]
        [target.odd]
        backend = "qemu"
        image = "odd"
        """
    )
    return Bench(Settings(root=root, accel="tcg", boot_timeout=boot_timeout))


def test_a_guest_that_never_gets_ready(tmp_path: Path) -> None:
    with bench_starting("sleep 1000", tmp_path, boot_timeout=6) as bench:
        began = time.monotonic()
        with pytest.raises(BootTimeout, match=r"(?s)within 6 s.*pytest-hil: ready.*boot-timeout"):
            bench.open(bench.target("odd"))
        assert time.monotonic() - began < 60


def test_a_guest_that_only_resets(tmp_path: Path) -> None:
    line = "echo b > /proc/sysrq-trigger; sleep 1000"
    with (
        bench_starting(line, tmp_path, boot_timeout=600) as bench,
        pytest.raises(MachineError, match=r"(?s)odd resets over and over.*6 times.*sysrq"),
    ):
        bench.open(bench.target("odd"))


def test_a_startup_line_that_fails(tmp_path: Path) -> None:
    with (
        bench_starting("ls /no/such/place", tmp_path) as bench,
        pytest.raises(MachineError, match=r"startup failed.*ls /no/such/place"),
    ):
        bench.open(bench.target("odd"))


def test_a_kernel_that_panics_at_boot(bench: Bench) -> None:
    began = time.monotonic()
    with pytest.raises(MachineError, match=r"Kernel panic - not syncing"):
        bench.open(bench.target("qemu", append="rdinit=/none init=/none root=/dev/none"))
    assert time.monotonic() - began < 30


def test_a_kernel_that_panics_in_a_test(guest: Guest) -> None:
    began = time.monotonic()
    with pytest.raises(Crashed, match="panicked"):
        guest.run("echo c > /proc/sysrq-trigger; sleep 100", timeout=60)
    assert time.monotonic() - began < 10
    guest.close()


def test_qemu_killed_under_a_command(guest: Guest) -> None:
    threading.Timer(0.3, guest.machine.process.kill).start()
    with pytest.raises(MachineDied, match="signal SIGKILL") as caught:
        guest.run("sleep 100")
    assert isinstance(caught.value.__cause__, OutcomeUnknown)
    assert guest.died() is not None
    guest.close()


def test_qemu_killed_under_an_expect(guest: Guest) -> None:
    threading.Timer(0.3, guest.machine.process.kill).start()
    with pytest.raises(MachineDied, match="SIGKILL"):
        guest.console.expect("never said", timeout=60)
    guest.close()


def test_a_frozen_guest_does_not_freeze_the_test(guest: Guest) -> None:
    guest.machine.monitor.execute("stop")
    began = time.monotonic()
    with pytest.raises(OutcomeUnknown):
        guest.run("true", timeout=0.5)
    assert time.monotonic() - began < 30
    guest.close()


def test_kvm_that_does_not_work_is_said_once(tmp_path: Path) -> None:
    said: list[str] = []
    with Bench(Settings(root=tmp_path, accel="auto"), say=said.append) as bench:
        for _ in range(2):
            bench.open(bench.target("qemu")).close()
        accel = bench.accel(bench.target("qemu"))
    if accel.name == "tcg" and Path("/dev/kvm").exists():
        assert len([line for line in said if "KVM does not work here" in line]) == 1
        with (
            Bench(Settings(root=tmp_path, accel="kvm")) as bench,
            pytest.raises(ConfigError, match="KVM cannot be used here"),
        ):
            bench.open(bench.target("qemu"))
    else:
        assert said == []


def test_more_memory_than_there_is(bench: Bench) -> None:
    with pytest.raises(NoRoom, match="hil_memory_budget"):
        bench.open(bench.target("qemu", memory="900G"))


@pytest.fixture
def own_room(bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Places that no other run of this user has a part in; the template is there."""
    bench.open(bench.target("qemu")).close()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.mark.usefixtures("own_room")
def test_a_machine_waits_for_memory(tmp_path: Path) -> None:
    shown: list[str] = []
    settings = Settings(root=tmp_path, accel="tcg", memory_budget=400 * MiB)
    with Bench(settings, progress=shown.append) as bench:
        first = bench.open(bench.target("qemu"))
        threading.Timer(0.5, first.close).start()
        began = time.monotonic()
        second = bench.open(bench.target("qemu"))
        assert time.monotonic() - began > 0.4
        assert second.run("echo mine").stdout == "mine\n"
        assert any("waiting for memory" in line for line in shown)
        second.close()


@pytest.mark.usefixtures("own_room")
def test_the_machine_kept_ready_gives_way(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, accel="tcg", memory_budget=700 * MiB, room_timeout=5)
    with Bench(settings) as bench:
        small = bench.target("qemu")
        first = bench.open(small)
        bench.prepare(small)
        other = bench.open(bench.target("qemu", memory="300M"))
        assert other.run("echo in").stdout == "in\n"
        other.close()
        first.close()


@pytest.mark.usefixtures("own_room")
def test_waiting_for_memory_ends(tmp_path: Path) -> None:
    settings = Settings(root=tmp_path, accel="tcg", memory_budget=400 * MiB, room_timeout=0.5)
    with Bench(settings) as own:
        first = own.open(own.target("qemu"))
        with pytest.raises(NoRoom, match=r"(?s)came free within 0.5 s.*qemu.*fewer tests"):
            own.open(own.target("qemu"))
        first.close()


# In a mount namespace of its own, so that an ordinary user can try it too.
IN_A_SMALL_CACHE = """
set -e
unshare --map-root-user --mount sh -ec '
    mount -t tmpfs -o size={size} tmpfs "$1"
    cp -r {source}/* "$1"/
    {then}
    exec "$2" -c "$3" "$1"
' sh "$1" "$2" "$3"
"""
OPEN = """
import sys
from pathlib import Path
from pytest_hil.bench import Bench, Settings
root = Path(sys.argv[1])
with Bench(Settings(root=root, accel="tcg", cache=root), say=print) as bench:
    guest = bench.open(bench.target("qemu"))
    print(guest.origin.how, guest.run("echo works").stdout)
print(sorted(path.name for path in root.glob("templates/*")))
"""


def _in_small_cache(bench: Bench, tmp_path: Path, *, size: str, then: str) -> str:
    """What a run says whose cache has the image, and only ``size`` of room."""
    image = bench.plan(bench.target("qemu")).hardware.kernel
    assert image is not None
    source = tmp_path / "source"
    source.mkdir()
    (source / image.parent.parent.name).mkdir()
    subprocess.run(["cp", "-r", image.parent, source / image.parent.parent.name], check=True)
    mount = tmp_path / "mount"
    mount.mkdir()
    script = IN_A_SMALL_CACHE.format(size=size, source=source, then=then)
    done = process.run(
        ["sh", "-c", script, "sh", str(mount), sys.executable, OPEN], timeout=120, check=False
    )
    return (done.stdout + done.stderr).decode()


def test_a_full_disk(bench: Bench, tmp_path: Path) -> None:
    said = _in_small_cache(bench, tmp_path, size="120M", then=":")
    assert "no template, every machine is booted" in said
    assert "boot works" in said
    assert said.rstrip().endswith("[]"), said


def test_a_read_only_cache(bench: Bench, tmp_path: Path) -> None:
    said = _in_small_cache(bench, tmp_path, size="400M", then='mount -o remount,ro "$1"')
    assert "no template, every machine is booted" in said
    assert "cannot be written" in said
    assert "boot works" in said
