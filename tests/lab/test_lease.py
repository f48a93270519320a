"""Leases within a process: who gets what, and what others are told."""

from __future__ import annotations

import os
import signal
import stat
import statistics
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pytest_hil.errors import ConfigError
from pytest_hil.lab import lease as lease_module
from pytest_hil.lab import queue
from pytest_hil.lab.lease import Busy, Lab, LabError, Lease
from pytest_hil.lab.locks import Lock
from pytest_hil.lab.registry import Holder, Reservation

Queued = Callable[[int], None]


def take(lab: Lab, *boards: str, purpose: str = "test", **how: float) -> Lease:
    return lab.acquire(boards, run="run1", purpose=purpose, **how)  # type: ignore[arg-type]


def in_thread(action: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_one_at_a_time(lab: Lab) -> None:
    first = take(lab, "a", purpose="nightly")
    with pytest.raises(
        Busy, match=r"a is not free:\n    a: .*run run1, .*\(nightly\) has it"
    ) as busy:
        take(lab, "a")
    assert [one.pid for one in busy.value.holders] == [os.getpid()]
    assert take(lab, "a", "b").board == "b"
    first.release()
    first.release()
    assert take(lab, "a").board == "a"


def test_who_has_what(lab: Lab) -> None:
    with take(lab, "a", purpose="looking") as lease:
        a, b = lab.status(["a", "b"])
        assert (a.holder, b.holder) == (lease.holder, None)
        assert (lease.holder.run, lease.holder.purpose) == ("run1", "looking")
        assert [one.board for one in lab.status()] == ["a"]
    assert lab.status()[0].holder is None
    assert [one.what for one in lab.history()] == ["taken", "released"]
    assert [one.what for one in lab.history(1)] == ["released"]


def test_it_is_given_back_when_the_test_fails(lab: Lab) -> None:
    def fail() -> None:
        with take(lab, "a"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    take(lab, "a").release()


def test_a_wait_that_is_too_short(lab: Lab) -> None:
    told: list[str] = []
    with take(lab, "a"):
        began = time.monotonic()
        with pytest.raises(Busy, match="a is not free after 0 s") as busy:
            lab.acquire(["a"], run="2", purpose="short", wait=0.3, on_wait=told.append)
        assert 0.3 <= time.monotonic() - began < 10
    assert 0.3 <= busy.value.waited < 10
    assert "waiting for a: a: " in told[0]
    assert lab.queue() == []
    assert list((lab.directory / "bells").iterdir()) == []


def test_a_queue_that_cannot_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "bells").write_text("no directory")
    with pytest.raises(LabError, match=r"cannot be used: .*bells"):
        Lab(tmp_path).queue()


def test_who_waits_sleeps(lab: Lab) -> None:
    """It neither polls nor wakes itself; others who wait and give up do not wake it either."""
    with take(lab, "a"):
        began = time.process_time()
        with pytest.raises(Busy):
            take(lab, "a", wait=1.0)
        assert time.process_time() - began < 0.2


def test_a_wait_ends_with_the_lease(lab: Lab, queued: Queued) -> None:
    first = take(lab, "a")
    got: list[Lease] = []
    thread = in_thread(lambda: got.append(take(lab, "a", wait=30)))
    queued(1)
    first.release()
    thread.join(30)
    assert got[0].board == "a"


def test_two_who_wait_for_each_other(lab: Lab, queued: Queued) -> None:
    """The one that closes the circle is told; the other gets what it has, once it gives it back."""
    a, b = take(lab, "a", purpose="first"), take(lab, "b", purpose="second")
    got: list[Lease] = []

    def wait() -> None:
        got.append(lab.acquire(["b"], purpose="first", wait=30, keeps=["a"]))

    thread = in_thread(wait)
    queued(1)
    with pytest.raises(Busy, match="a would never come free") as busy:
        lab.acquire(["a"], purpose="second", wait=30, keeps=["b"])
    assert "what we have, b:\n    a: " in str(busy.value)
    assert "(first) has it, and waits for b" in str(busy.value)
    assert len(lab.queue()) == 1
    b.release()
    thread.join(30)
    assert got[0].board == "b"
    a.release()


def test_an_interrupted_wait_is_in_nobodys_way(lab: Lab, queued: Queued) -> None:
    def interrupt(_why: str) -> None:
        queued(1)
        raise KeyboardInterrupt

    with take(lab, "a"), pytest.raises(KeyboardInterrupt):
        lab.acquire(["a"], run="2", purpose="x", wait=30, on_wait=interrupt)
    assert lab.queue() == []
    take(lab, "a").release()


def test_first_come_first_served_and_priorities(lab: Lab, queued: Queued) -> None:
    order: list[str] = []
    first = take(lab, "a")
    threads = []

    def wait(name: str, priority: int) -> None:
        with take(lab, "a", purpose=name, wait=30, priority=priority):
            order.append(name)

    asked = [("one", 0), ("two", 0), ("urgent", 9), ("three", 0), ("other", 9), ("low", -1)]
    for place, (name, priority) in enumerate(asked, 1):
        threads.append(in_thread(lambda name=name, priority=priority: wait(name, priority)))  # type: ignore[misc]
        queued(place)
    expected = ["urgent", "other", "one", "two", "three", "low"]
    assert [one.who.purpose for one in lab.queue()] == expected
    assert [one.who.purpose for one in lab.status(["a"])[0].queue] == expected
    first.release()
    for thread in threads:
        thread.join(30)
    assert order == expected


def test_nobody_is_passed_over(lab: Lab, queued: Queued) -> None:
    """A board that somebody with precedence waits for goes to them, not to who asks just then."""
    first = take(lab, "a")
    got: list[Lease] = []
    thread = in_thread(lambda: got.append(take(lab, "a", wait=30)))
    queued(1)
    assert take(lab, "a", "b").board == "b"
    with pytest.raises(Busy, match="1 came first"):
        take(lab, "a")
    first.release()
    thread.join(30)
    assert got[0].board == "a"


def test_nobody_starves(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "AGE", 0.05)
    over = threading.Event()

    def hog() -> None:
        while not over.is_set():
            with take(lab, "a", wait=30, priority=10):
                time.sleep(0.005)

    hogs = [in_thread(hog) for _ in range(4)]
    try:
        with take(lab, "a", wait=30, priority=-10):
            over.set()
    finally:
        over.set()
    for one in hogs:
        one.join(30)


def test_reserved_for_another(lab: Lab) -> None:
    lab.reserve("a", "no-such-user", seconds=60, reason="demo")
    with pytest.raises(Busy, match=r"a: it is reserved for no-such-user by .* until .*\(demo\)"):
        take(lab, "a")
    assert take(lab, "a", "b").board == "b"
    assert lab.release("a") is not None
    assert lab.release("a") is None
    take(lab, "a").release()


@pytest.mark.parametrize("word", ["user", "reason"])
def test_a_reservation_has_words_that_can_be_shown(lab: Lab, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{word}: 'a\\x1b\[31mred\\nnext' has a character"):
        lab.reserve("a", seconds=60, **{word: "a\x1b[31mred\nnext"})  # type: ignore[arg-type]
    assert lab.status(["a"])[0].reservation is None


def test_what_others_wrote_steers_no_terminal() -> None:
    words = "a\x1b[31mred\nnext"
    reserved = Reservation("a", words, words, 0.0, 1.0, words)
    holder = Holder(words, "host", 1, "run", words, 0.0)
    for one in map(str, (reserved, holder)):
        assert one.count("a␛[31mred next") == 2
        assert one.isprintable()


def test_reserved_for_us(lab: Lab) -> None:
    one = lab.reserve("a", seconds=60)
    assert one.user == one.maker
    with take(lab, "a"):
        pass
    assert lab.status(["a"])[0].reservation == one


def test_others_reservations(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.reserve("a", "bob", seconds=60)
    monkeypatch.setattr(lease_module, "user_name", lambda: "mallory")
    with pytest.raises(LabError, match=r"reserved for bob(.|\n)*--force a"):
        lab.release("a")
    with pytest.raises(LabError, match="reserved for bob"):
        lab.reserve("a", seconds=60)
    assert lab.release("a", force=True) is not None


def test_a_reservations_end_wakes_who_waits(lab: Lab) -> None:
    lab.reserve("a", "no-such-user", seconds=0.4)
    began = time.monotonic()
    with take(lab, "a", wait=30):
        assert 0.3 < time.monotonic() - began < 5
    assert "expired" in [one.what for one in lab.history()]


def test_a_reservation_that_is_ended_wakes_who_waits(lab: Lab, queued: Queued) -> None:
    lab.reserve("a", "no-such-user", seconds=600)
    got: list[Lease] = []
    thread = in_thread(lambda: got.append(take(lab, "a", wait=30)))
    queued(1)
    lab.release("a")
    thread.join(30)
    assert got[0].board == "a"


def test_a_live_lease_is_its_holders(lab: Lab) -> None:
    with take(lab, "a", purpose="nightly"):
        with pytest.raises(Busy, match=r"process \d+, run run1.*\(nightly\) has it"):
            lab.release("a", force=True)
        with pytest.raises(Busy):
            take(lab, "a")


def test_a_child_has_no_part_in_it(lab: Lab) -> None:
    """Neither one that runs a program, nor one that was forked: it keeps and frees nothing."""
    lease = take(lab, "a")
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    forked = os.fork()
    if forked == 0:
        lease.release()
        signal.pause()
        os._exit(0)
    try:
        with pytest.raises(Busy):
            take(lab, "a")
        lease.release()
        take(lab, "a").release()
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        child.kill()
        child.wait()


def test_it_survives_the_registrys_loss(lab: Lab, queued: Queued) -> None:
    """Leases and waits go on, though the numbers of tickets begin again."""
    first = take(lab, "a", purpose="precious")
    got: list[str] = []

    def wait(name: str) -> None:
        with take(lab, "a", purpose=name, wait=30):
            got.append(name)

    early = in_thread(lambda: wait("early"))
    queued(1)
    for path in lab.directory.glob("registry.sqlite*"):
        path.unlink()
    with pytest.raises(Busy, match="precious"):
        take(lab, "a")
    late = in_thread(lambda: wait("late"))
    queued(2)
    assert lab.status(["a"])[0].holder == first.holder
    began = time.monotonic()
    first.release()
    early.join(30)
    late.join(30)
    assert time.monotonic() - began < 5
    assert got == ["early", "late"]


def test_a_lock_that_the_registry_does_not_know(lab: Lab) -> None:
    take(lab, "a").release()
    lock = Lock.take(lab.directory / "boards" / "a.lock", wait=False)
    assert lock is not None
    threading.Timer(0.3, lock.free).start()
    with pytest.raises(Busy, match=r"a: somebody@\?.*the registry does not know them"):
        take(lab, "a")
    take(lab, "a", wait=30).release()


def test_a_registry_that_breaks_frees_the_board_all_the_same(lab: Lab) -> None:
    lease = take(lab, "a")
    broken = lab.directory / "registry.sqlite"
    for path in lab.directory.glob("registry.sqlite*"):
        path.unlink()
    broken.write_bytes(b"x" * 5000)
    with pytest.raises(LabError, match="damaged"):
        lease.release()
    with pytest.raises(LabError, match="damaged"):
        take(lab, "a")
    broken.unlink()
    take(lab, "a").release()


@pytest.mark.parametrize("mode", [0o700, 0o2770])
def test_who_may_use_the_directory_may_use_what_is_in_it(tmp_path: Path, mode: int) -> None:
    lab = Lab(tmp_path / "deep" / "lab", mode=mode)
    with take(lab, "a"):
        for path in [lab.directory, *lab.directory.rglob("*")]:
            found = stat.S_IMODE(path.stat().st_mode)
            assert found == (mode if path.is_dir() else mode & 0o666), path


def test_a_directory_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="PYTEST_HIL_LAB"):
        take(Lab(tmp_path / "file"), "a")


def test_the_default_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_HIL_LAB", str(tmp_path / "x"))
    assert Lab().directory == tmp_path / "x"
    monkeypatch.delenv("PYTEST_HIL_LAB")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert Lab().directory.is_relative_to(tmp_path / "state" / "pytest-hil" / "lab")


@pytest.mark.parametrize("board", ["", "..", "a/b", "-x", "a\n"])
def test_names_that_cannot_be(lab: Lab, board: str) -> None:
    with pytest.raises(ConfigError, match="cannot be a board's name"):
        take(lab, board)
    with pytest.raises(ConfigError):
        lab.reserve(board, seconds=5)


def test_wrongly_asked(lab: Lab) -> None:
    with pytest.raises(ConfigError, match="11 is not one of"):
        take(lab, "a", priority=11)
    with pytest.raises(ConfigError, match="none is named"):
        take(lab)
    with pytest.raises(ConfigError, match="give one"):
        lab.reserve("a")
    with pytest.raises(ConfigError, match="future"):
        lab.reserve("a", until=1.0)


def test_it_is_quick(lab: Lab) -> None:
    """The bound is ten times what it takes on a host that has nothing else to do."""
    took = []
    for _ in range(50):
        began = time.perf_counter()
        take(lab, "a").release()
        took.append(time.perf_counter() - began)
    assert statistics.median(took) < 0.015
