"""The registry's file: what is kept, and what is said when it is not as it should be."""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_hil.lab import registry
from pytest_hil.lab.queue import Waiter
from pytest_hil.lab.registry import Holder, LabError, Reservation

WHO = Holder("ann", "bench1", 42, "run7", "nightly", 1000.0, "4026", 77)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registry.sqlite"


def test_what_is_written_is_read_by_the_next(path: Path) -> None:
    reservation = Reservation("b", "ann", "bob", 1.0, 2.0, "demo")
    with registry.opened(path) as rows:
        rows.lease("a", WHO)
        first = rows.queue(Waiter(0, ("a", "b"), 5.0, "ann", WHO.process, 3), "bell", WHO)
        rows.reserve(reservation)
    with registry.opened(path) as rows:
        assert rows.leases() == {"a": WHO}
        assert rows.tickets() == [first]
        assert first.waiter == Waiter(1, ("a", "b"), 5.0, "ann", ("4026", 42, 77), 3)
        assert rows.reservations() == {"b": reservation}
        rows.end_lease("a", WHO, "lost")
        rows.end_ticket(1)
        rows.end_reservation(reservation, "expired")
    with registry.opened(path) as rows:
        assert (rows.leases(), rows.tickets(), rows.reservations()) == ({}, [], {})
        events = rows.history(10)
        assert [(one.what, one.board) for one in events] == [
            ("taken", "a"),
            ("reserved", "b"),
            ("lost", "a"),
            ("expired", "b"),
        ]
        assert events[2].seconds == pytest.approx(time.time() - 1000, abs=60)
        assert [one.what for one in rows.history(1)] == ["expired"]


def test_what_fails_is_not_kept(path: Path) -> None:
    def fail() -> None:
        with registry.opened(path) as rows:
            rows.lease("a", WHO)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with registry.opened(path) as rows:
        assert rows.leases() == {}


def test_tickets_are_never_numbered_again(path: Path) -> None:
    asked = Waiter(0, ("a",), 5.0, "ann", WHO.process)
    with registry.opened(path) as rows:
        rows.end_ticket(rows.queue(asked, "one", WHO).waiter.number)
        assert rows.queue(asked, "two", WHO).waiter.number == 2


def test_old_history_goes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_KEPT", 50)
    with registry.opened(path) as rows:
        for number in range(300):
            rows.lease("a", replace(WHO, run=str(number)))
        kept = rows.history(1000)
    assert [one.run for one in kept] == [str(number) for number in range(250, 300)]


def test_it_is_a_file_in_wal_mode_that_others_can_read(path: Path) -> None:
    with registry.opened(path) as rows:
        rows.lease("a", WHO)
        reader = sqlite3.connect(path)
        assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert reader.execute("SELECT count(*) FROM leases").fetchone() == (0,)
    assert reader.execute("SELECT count(*) FROM leases").fetchone() == (1,)
    reader.close()


@pytest.mark.parametrize("contents", [b"x" * 5000, os.urandom(8192)])
def test_a_damaged_file(path: Path, contents: bytes) -> None:
    path.write_bytes(contents)
    with pytest.raises(LabError, match=r"damaged(.|\n)*mv .*registry\.sqlite"):
        registry.opened(path).__enter__()


def test_a_damaged_page(path: Path) -> None:
    with registry.opened(path) as rows:
        rows.lease("a", WHO)
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(LabError, match="damaged"), registry.opened(path) as rows:
        rows.leases()


def test_a_damaged_row(path: Path) -> None:
    with registry.opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute("INSERT INTO leases VALUES ('a', '{\"user\": 1}')")
    database.commit()
    database.close()
    wanted = r"damaged.*says nothing of a holder"
    with pytest.raises(LabError, match=wanted), registry.opened(path) as rows:
        rows.leases()


def test_a_newer_file(path: Path) -> None:
    with registry.opened(path):
        pass
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(LabError, match=r"newer pytest-hil: its schema is 9, this one knows 1"):
        registry.opened(path).__enter__()


def test_somebody_elses_database(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE music (title)")
    database.commit()
    database.close()
    with pytest.raises(LabError, match="not the lab's registry"):
        registry.opened(path).__enter__()


def test_a_lock_of_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_PATIENCE", 0.1)
    with registry.opened(path):
        pass
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LabError, match=r"locked(.|\n)*no other program"):
        registry.opened(path).__enter__()
    other.close()


def test_its_mode_is_the_directorys(tmp_path: Path) -> None:
    tmp_path.chmod(0o2770)
    with registry.opened(tmp_path / "r") as rows:
        rows.lease("a", WHO)
        modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes == {0o660}


def test_what_stands_in_a_locks_file() -> None:
    assert registry.holder_in("") is None
    assert registry.holder_in("[]") is None
    assert registry.holder_in('{"user": "ann"}') is None
    old = '{"user": "a", "host": "h", "pid": 1, "purpose": "p", "since": 2.0, "wants": []}'
    assert registry.holder_in(old) == Holder("a", "h", 1, "", "p", 2.0)
