"""What could make two clones alike, and what could make a template unusable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.bench import Bench, Settings
from pytest_hil.cache import Cache
from pytest_hil.errors import CommandFailed, NotThere, OutcomeUnknown
from pytest_hil.qemu import template
from pytest_hil.qemu.guest import Guest
from pytest_hil.qemu.state import State, manifest

pytestmark = pytest.mark.machine


@pytest.fixture
def cache(tmp_path: Path, bench: Bench) -> Cache:
    """A cache with the image and no template."""
    bench.plan(bench.target("qemu"))
    own = Cache(tmp_path / "cache")
    own.root.mkdir()
    for path in bench.cache.root.iterdir():
        if path.name != template.KIND:
            (own.root / path.name).symlink_to(path)
    return own


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def own(cache: Cache, said: list[str]) -> Iterator[Bench]:
    """A bench on that cache."""
    settings = Settings(root=cache.root, accel="tcg", cache=cache.root)
    with Bench(settings, say=said.append) as made:
        yield made


def made_template(bench: Bench) -> State:
    found = bench.factory(bench.target("qemu")).template()
    assert found is not None
    return found


IDENTITY = "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/boot_id; hostname; date +%s"


@pytest.mark.slow
def test_fifty_clones_of_an_old_template_share_nothing(bench: Bench) -> None:
    state = made_template(bench)
    made = manifest(state.path)["made"]
    assert isinstance(made, float)
    # A young template hides it: its clones' generators are reseeded by chance.
    time.sleep(max(0.0, made + 120 - time.time()))
    seen: dict[str, list[str]] = {"random": [], "uuid": [], "hostname": [], "machine-id": []}
    for _ in range(50):
        guest = bench.open(bench.target("qemu"))
        try:
            seen["random"].append(guest.run("head -c 16 /dev/urandom | od -An -tx1").stdout)
            seen["uuid"].append(guest.run("cat /proc/sys/kernel/random/uuid").stdout)
            seen["hostname"].append(guest.run("hostname").stdout)
            seen["machine-id"].append(guest.run("cat /etc/machine-id").stdout)
            before = time.time()
            clock = float(guest.run("date +%s.%N 2>/dev/null").stdout.split(".")[0])
            assert before - 1 <= clock + 1, "behind"
            assert clock <= time.time() + 1, "ahead"
        finally:
            guest.close()
    assert {name: len(set(values)) for name, values in seen.items()} == dict.fromkeys(seen, 50)


def test_clones_of_one_moment_differ(bench: Bench) -> None:
    guests = [bench.open(bench.target("qemu")) for _ in range(3)]
    try:
        said = [guest.run(IDENTITY).stdout.splitlines() for guest in guests]
    finally:
        for guest in guests:
            guest.close()
    uuids, _boots, names, clocks = zip(*said, strict=True)
    assert len(set(uuids)) == len(set(names)) == 3
    assert all(abs(int(clock) - time.time()) < 5 for clock in clocks)


def test_forks_draw_different_numbers(guest: Guest) -> None:
    twin = guest.fork()
    draw = "cat /proc/sys/kernel/random/uuid; head -c 8 /dev/urandom | od -An -tx1"
    assert guest.run(draw).stdout != twin.run(draw).stdout
    assert guest.run("hostname").stdout == twin.run("hostname").stdout


def test_a_command_under_way_in_a_snapshot_is_not_in_the_restored_machine(guest: Guest) -> None:
    failed: list[BaseException] = []

    def busy() -> None:
        try:
            guest.run("touch /tmp/begun; exec sleep 4321", timeout=30)
        except (OutcomeUnknown, CommandFailed) as error:
            failed.append(error)

    thread = threading.Thread(target=busy)
    thread.start()
    guest.run("until ps | grep '[s]leep 4321'; do usleep 10000; done")
    saved = guest.snapshot()
    guest.restore(saved)
    thread.join(10)
    assert not thread.is_alive()
    assert [type(error) for error in failed] == [OutcomeUnknown]
    assert guest.run("ps | grep '[s]leep 4321'", check=False).stdout == ""


def test_the_key_depends_on_all_that_could_change(own: Bench) -> None:
    plan = own.plan(own.target("qemu"))
    keys = {
        template.key(plan),
        template.key(replace(plan, image_key="other")),
        template.key(replace(plan, emulator=replace(plan.emulator, fingerprint="other"))),
        template.key(replace(plan, hardware=replace(plan.hardware, smp=2))),
        template.key(replace(plan, hardware=replace(plan.hardware, accel="kvm"))),
        template.key(replace(plan, hardware=replace(plan.hardware, machine="pc-q35-7.1"))),
        template.key(replace(plan, hardware=replace(plan.hardware, cpu="qemu64"))),
    }
    assert len(keys) == 7


@pytest.mark.parametrize("damage", ["memory", "state", "garbage", "manifest"])
def test_a_damaged_template_is_said_and_does_no_harm(
    own: Bench, said: list[str], damage: str
) -> None:
    state = made_template(own)
    if damage == "memory":
        os.truncate(state.memory, 4096)
    elif damage == "state":
        os.truncate(state.stream, state.stream.stat().st_size // 2)
    elif damage == "garbage":
        state.stream.write_bytes(os.urandom(state.stream.stat().st_size))
    else:
        (state.path / "manifest.json").write_text("{")
    guest = own.open(own.target("qemu"))
    try:
        assert guest.run("echo fine").stdout == "fine\n"
        assert guest.origin.how == "boot"
    finally:
        guest.close()
    assert len(said) == 1
    assert "no template, every machine is booted" in said[0]
    assert not state.path.exists()


def test_a_half_written_template_is_made_anew(own: Bench) -> None:
    state = made_template(own)
    (state.path / "manifest.json").unlink()
    again = made_template(own)
    assert (again.path / "manifest.json").exists()
    guest = own.open(own.target("qemu"))
    assert guest.origin.how == "clone"
    guest.close()


def test_a_template_removed_under_live_clones(own: Bench) -> None:
    state = made_template(own)
    guest = own.open(own.target("qemu"))
    try:
        own.cache.remove(template.KIND, state.path.name)
        assert not state.path.exists()
        # Touch pages that it has not touched yet: they come from the removed file.
        assert guest.run("cat /bin/busybox | sha256sum; ls -R /lib | wc -l").ok
        twin = guest.fork()
        assert twin.run("echo fork").stdout == "fork\n"
    finally:
        guest.close()
    fresh = own.open(own.target("qemu"))
    assert fresh.origin.how == "clone"
    fresh.close()


TWO = """
import json, sys
from pathlib import Path
from pytest_hil import process
from pytest_hil.bench import Bench, Settings
lines = []
root = Path(sys.argv[1])
with Bench(Settings(root=root, accel="tcg", cache=root), progress=lines.append) as bench:
    guest = bench.open(bench.target("qemu"))
    print(json.dumps({"how": guest.origin.how, "out": guest.run("echo hi").stdout,
                      "booted": any("booting the template" in line for line in lines)}))
"""


def test_two_builders_at_once_boot_once(cache: Cache) -> None:
    both = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, str(cache.root)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [json.loads(one.communicate(timeout=120)[0]) for one in both]
    assert [one["out"] for one in said] == ["hi\n", "hi\n"]
    assert [one["how"] for one in said] == ["clone", "clone"]
    assert sorted(one["booted"] for one in said) == [False, True]


def test_a_snapshot_of_another_target_is_refused(bench: Bench, guest: Guest) -> None:
    saved = guest.snapshot()
    with pytest.raises(NotThere, match="is of the target other"):
        guest.restore(replace(saved, target="other"))


def test_a_snapshot_ends_with_its_target(bench: Bench, guest: Guest) -> None:
    other = bench.open(bench.target("qemu"))
    saved = other.snapshot("mine")
    other.close()
    with pytest.raises(NotThere, match="mine is gone"):
        guest.restore(saved)
    with pytest.raises(NotThere, match="is closed"):
        other.run("true")
    guest.power.off()
    with pytest.raises(NotThere, match="is switched off"):
        guest.run("true")


def test_a_clone_that_is_killed_does_not_cost_the_template(own: Bench, said: list[str]) -> None:
    state = made_template(own)

    def killer() -> None:
        while not stop.is_set():
            for one in own.room.occupants():
                if one.owner == os.getpid() and one.name == "qemu":
                    process.kill_pid(one.pid, started=one.started)
                    return

    stop = threading.Event()
    thread = threading.Thread(target=killer)
    thread.start()
    try:
        guest = own.open(own.target("qemu"))
    finally:
        stop.set()
        thread.join()
    assert guest.run("echo fine").stdout == "fine\n"
    guest.close()
    assert state.path.exists()
    assert said == []
    again = own.open(own.target("qemu"))
    assert again.origin.how == "clone"
    again.close()
