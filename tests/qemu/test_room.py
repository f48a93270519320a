"""Places of machines, with processes that only sleep in the machines' stead."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.errors import NoMemory
from pytest_hil.process import Process
from pytest_hil.qemu import runtime
from pytest_hil.qemu.room import Room

MiB = 2**20


@pytest.fixture(autouse=True)
def own_runtime(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def sleepers() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for one in started:
        one.end()


def enter(room: Room, sleepers: list[Process], memory: int, *, timeout: float = 0.0) -> Process:
    def launch() -> Process:
        sleepers.append(process.start(["sleep", "100"]))
        return sleepers[-1]

    return room.start("sleeper", memory, launch, timeout=timeout)


def test_what_never_fits_is_refused_at_once(sleepers: list[Process]) -> None:
    with pytest.raises(NoMemory, match=r"wants 200 MB.*100 MB here"):
        enter(Room(100 * MiB), sleepers, 200 * MiB, timeout=100)


def test_a_place_is_free_when_its_process_is_gone(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    first = enter(room, sleepers, 200 * MiB)
    with pytest.raises(NoMemory, match="sleeper"):
        enter(room, sleepers, 200 * MiB)
    first.kill()
    enter(room, sleepers, 200 * MiB, timeout=5)
    assert [one.memory for one in room.occupants()] == [200 * MiB]


def test_who_waits_is_woken_by_the_end_of_another(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    first = enter(room, sleepers, 200 * MiB)
    threading.Timer(0.2, first.end).start()
    began = time.monotonic()
    enter(room, sleepers, 200 * MiB, timeout=30)
    assert 0.15 < time.monotonic() - began < 5


def test_two_rooms_of_one_user_are_one(sleepers: list[Process]) -> None:
    enter(Room(300 * MiB), sleepers, 200 * MiB)
    with pytest.raises(NoMemory):
        enter(Room(300 * MiB), sleepers, 200 * MiB)


def test_an_idle_machine_is_asked_to_go(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    idle = [enter(room, sleepers, 200 * MiB)]

    def free_idle() -> bool:
        if not idle:
            return False
        idle.pop().end()
        return True

    def launch() -> Process:
        sleepers.append(process.start(["sleep", "100"]))
        return sleepers[-1]

    room.start("second", 200 * MiB, launch, timeout=0, free_idle=free_idle)
    assert idle == []


def test_many_at_once_never_take_more_than_there_is(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    refused: list[NoMemory] = []

    def one() -> None:
        try:
            enter(room, sleepers, 100 * MiB)
        except NoMemory as error:
            refused.append(error)

    threads = [threading.Thread(target=one) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(room.occupants()) == 3
    assert len(refused) == 7


def test_an_orphan_is_ended(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    orphan = enter(room, sleepers, 100 * MiB)
    (place,) = (runtime.base() / "machines").glob(f"{orphan.pid}.*")
    facts = json.loads(place.read_text()) | {"owner": 2**22 + 1, "owner_started": 1}
    place.write_text(json.dumps(facts))
    assert [one.pid for one in room.reap()] == [orphan.pid]
    assert orphan.wait(5) == -9


def test_garbage_in_a_place_is_forgotten(sleepers: list[Process]) -> None:
    room = Room(300 * MiB)
    mine = f"{os.getpid()}.{process.start_time(os.getpid())}"
    (runtime.base() / "machines" / mine).write_text("{")
    (runtime.base() / "machines" / "1.x").write_text("{}")
    assert room.occupants() == []


def test_dead_owners_directories_are_reaped() -> None:
    mine = runtime.directory("disk")
    dead = runtime.base() / "4194305.1"
    (dead / "disk-x").mkdir(parents=True)
    assert runtime.reap() == ["4194305.1"]
    assert mine.is_dir()
    assert not dead.exists()
    runtime.remove(mine)
    assert not mine.parent.exists()


def test_a_runtime_directory_of_somebody_else_is_refused() -> None:
    from pytest_hil.errors import NoRoom

    runtime.base().chmod(0o755)
    with pytest.raises(NoRoom, match=r"is not ours alone.*mode 755"):
        runtime.base()
