"""How a board falls ill and gets well: the rules as such, and what is kept of it."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.lab import health
from pytest_hil.lab.health import Health, Policy
from pytest_hil.lab.health_book import HealthBook, Quarantined, clock, sentence
from pytest_hil.lab.lease import Lab

POLICY = Policy(after=3, window=100.0, pause=10.0, longest=35.0)
Start = Callable[..., "subprocess.Popen[str]"]


def after(*events: tuple[str, float]) -> Health:
    """``after(("failed", 1.0), …)``: what becomes of a board of which nothing is known."""
    one = Health()
    for what, now in events:
        one = step(one, what, now)
    return one


def step(one: Health, what: str, now: float) -> Health:
    if what == "failed":
        return health.failed(one, "it broke", now, POLICY)
    if what == "held":
        return health.quarantined(one, "smoke", "ann", now)
    change = {"used": health.used, "probed": health.probed, "cleared": health.cleared}[what]
    return change(one, now)


F1, F2, F3 = ("failed", 1.0), ("failed", 2.0), ("failed", 3.0)


@pytest.mark.parametrize(
    ("events", "state", "errors", "retry_at"),
    [
        ([], "healthy", 0, 0),
        ([F1], "suspect", 1, 0),
        ([F1, F2], "suspect", 2, 0),
        ([F1, F2, F3], "quarantined", 3, 13),
        # One test that is well, and it is counted anew.
        ([F1, F2, ("used", 3.0)], "healthy", 0, 0),
        ([F1, F2, ("used", 3.0), ("failed", 4.0)], "suspect", 1, 0),
        # That it boots says little: it may break in every test.
        (
            [F1, ("probed", 2.0), ("failed", 3.0), ("probed", 4.0), ("failed", 5.0)],
            *("quarantined", 3, 15),
        ),
        # What is long ago does not count.
        ([F1, F2, ("failed", 200.0)], "suspect", 1, 0),
        # Before its time nothing changes that.
        ([F1, F2, F3, ("failed", 5.0)], "quarantined", 4, 13),
        ([F1, F2, F3, ("used", 5.0)], "quarantined", 3, 13),
        # Its time has come: in vain, twice as long; up to the longest.
        ([F1, F2, F3, ("failed", 13.0)], "quarantined", 4, 33),
        ([F1, F2, F3, ("failed", 13.0), ("failed", 33.0)], "quarantined", 5, 68),
        (
            [F1, F2, F3, ("failed", 13.0), ("failed", 33.0), ("failed", 68.0)],
            *("quarantined", 6, 103),
        ),
        # It boots again; and then?
        ([F1, F2, F3, ("probed", 13.0)], "probation", 3, 0),
        ([F1, F2, F3, ("probed", 13.0), ("used", 14.0)], "healthy", 0, 0),
        ([F1, F2, F3, ("probed", 13.0), ("failed", 14.0)], "quarantined", 4, 34),
        # Somebody checks it by hand before its time.
        ([F1, F2, F3, ("probed", 5.0)], "probation", 3, 0),
        ([F1, F2, F3, ("cleared", 5.0)], "healthy", 0, 0),
        # By hand: until somebody lifts it.
        ([("held", 1.0)], "quarantined", 0, 0),
        ([("held", 1.0), ("probed", 1e9)], "quarantined", 0, 0),
        ([("held", 1.0), ("failed", 2.0), ("failed", 3.0)], "quarantined", 2, 0),
        ([("held", 1.0), ("cleared", 2.0)], "healthy", 0, 0),
        ([F1, F2, F3, ("held", 4.0)], "quarantined", 3, 0),
    ],
)
def test_what_becomes_of_a_board(
    events: list[tuple[str, float]], state: str, errors: int, retry_at: float
) -> None:
    one = after(*events)
    assert (one.state, one.errors, one.retry_at) == (state, errors, retry_at)


def test_who_gets_it_when() -> None:
    ill = after(F1, F2, F3)
    assert [ill.barred(now) for now in (3.0, 12.9, 13.0, 1e6)] == [True, True, False, False]
    assert [ill.due(now) for now in (3.0, 12.9, 13.0, 1e6)] == [False, False, True, True]
    assert not ill.barred(-1e6), "a clock that was set back keeps nobody out for years"
    held = after(("held", 1.0))
    assert held.barred(1e12)
    assert not held.due(1e12)
    assert not after(F1).barred(1.0)


def test_a_healthy_board_is_no_news() -> None:
    one = after(("used", 1.0))
    assert health.used(one, 2.0) is one
    assert health.used(one, 3600.0).last_good == 3600.0
    assert health.used(one, -3600.0).last_good == -3600.0


def test_a_reason_is_a_line() -> None:
    one = health.failed(Health(), "\n  no prompt\nmuch\nmore", 1.0, POLICY)
    assert one.reason == "no prompt"
    assert len(health.failed(Health(), "x" * 9999, 1.0, POLICY).reason) == 300
    assert health.failed(Health(), " \n", 1.0, POLICY).reason == "it broke"


WORDS = st.sampled_from(["failed", "used", "probed", "cleared", "held"])
EVENTS = st.lists(st.tuples(WORDS, st.floats(0, 200)), max_size=40)


@given(EVENTS)
def test_whatever_happens(events: list[tuple[str, float]]) -> None:
    one, now, in_a_row = Health(), 1.0, 0
    for what, pause in events:
        now += pause
        before, one = one, step(one, what, now)
        in_a_row = in_a_row + 1 if what == "failed" else 0 if what != "probed" else in_a_row
        if one.state == "quarantined":
            assert one.by or 0 < one.retry_at <= now + POLICY.longest
            assert before.state == "quarantined" or what in ("failed", "held")
            # Before the first time it takes so many in a row, and for each further time one.
            assert one.by or one.errors >= POLICY.after
        else:
            assert (one.retry_at, one.by) == (0, "")
            assert not one.barred(now)
            assert not one.due(now)
            assert before.state != "quarantined" or what in ("probed", "cleared")
        if in_a_row >= POLICY.after and what == "failed" and one.errors >= POLICY.after:
            assert one.state == "quarantined", "never used for ever while it breaks and breaks"
        assert one.errors >= 0
        assert one.state in health.STATES


@given(st.lists(st.floats(0.1, 100), min_size=3, max_size=30))
def test_a_dead_board_is_tried_less_and_less(pauses: list[float]) -> None:
    """Whoever gets it whenever it may be had: the pauses double, up to the longest."""
    one, now = Health(), 0.0
    waits = []
    for late in pauses:
        now = max(now, one.retry_at) + late
        one = health.failed(one, "dead", now, POLICY)
        if one.state == "quarantined":
            waits.append(one.retry_at - now)
    assert waits == pytest.approx([min(10.0 * 2**n, 35.0) for n in range(len(waits))])
    assert len(waits) == len(pauses) - 2


# --- what is kept ---


@pytest.fixture
def book(lab: Lab) -> HealthBook:
    return HealthBook(lab.directory, policy=POLICY)


def test_nothing_is_made_by_looking(book: HealthBook) -> None:
    assert book.look() == {}
    assert book.look(["a"]) == {"a": Health()}
    assert not book.directory.exists()


def test_it_is_kept_across_runs(book: HealthBook, lab: Lab) -> None:
    for number in range(3):
        book.failed("a", f"the board a did not reach shell: {number}")
    one = HealthBook(lab.directory).look()["a"]
    assert (one.state, one.errors, one.reason) == ("quarantined", 3, "did not reach shell: 2")
    assert one == book.look(["a"])["a"]
    with lab.acquire(["a"], purpose="x"):
        pass
    assert HealthBook(lab.directory).look()["a"] == one
    assert (lab.history()[0].what, lab.history()[0].board) == ("quarantined", "a")
    book.clear("a")
    assert lab.history()[-1].what == "healthy"


def test_what_is_said_of_it() -> None:
    noon = time.mktime((2030, 1, 2, 12, 3, 0, 0, 0, -1))
    one = Health("quarantined", 3, "did not reach shell", noon, noon, 0.0, noon + 600, 600.0)
    said = "rig1 is quarantined since 12:03: did not reach shell (3 times); next try 12:13"
    assert sentence("rig1", one, now=noon + 1) == said
    assert sentence("rig1", one, now=noon + 86400).count("2030-01-02 12:") == 2
    held = health.quarantined(Health(), "smoke\x1b[2J", "ann", noon)
    assert sentence("b", held, now=noon).endswith(
        "since 12:03 by ann: smoke␛[2J; until it is lifted"
    )
    assert clock(0.0) == "-"
    assert "pytest-hil lab health rig1 --check" in Quarantined({"rig1": one}).mend
    both = str(Quarantined({"rig1": one, "b": held}))
    assert both.startswith("all boards that fit are quarantined:\n    rig1 is")
    assert "\n    b is quarantined" in both


def row(path: Path, text: str) -> None:
    database = sqlite3.connect(path)
    database.execute("INSERT OR REPLACE INTO health VALUES ('a', ?)", (text,))
    database.commit()
    database.close()


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("", "healthy"),
        ("nonsense", "healthy"),
        ("[1]", "healthy"),
        ('{"state": 7, "errors": "many", "retry_at": 1e999, "pause": NaN, "since": -1}', "healthy"),
        ('{"state": "melted", "errors": 2}', "suspect"),
        ('{"state": "quarantined", "retry_at": true}', "quarantined"),
        ('{"state": "suspect", "errors": 1, "mood": "low"}', "suspect"),
    ],
)
def test_a_row_of_another_version(book: HealthBook, text: str, state: str) -> None:
    book.failed("b", "so that there is a table")
    row(book.directory / "registry.sqlite", text)
    assert book.look()["a"].state == state
    sentence("a", book.look()["a"])
    assert not book.look()["a"].barred(time.time()), "nobody would ever lift it"
    book.failed("a", "again")
    assert book.look()["a"].errors >= 1


def test_what_a_newer_one_has_written_beside_stays(book: HealthBook) -> None:
    path = book.directory / "registry.sqlite"
    book.failed("b", "so that there is a table")
    row(path, '{"state": "suspect", "errors": 1, "mood": "low"}')
    book.used("a")
    database = sqlite3.connect(path)
    (text,) = database.execute("SELECT facts FROM health WHERE board = 'a'").fetchone()
    database.close()
    assert json.loads(text)["mood"] == "low"
    assert book.look()["a"].state == "healthy"


def test_a_registry_of_before(book: HealthBook, lab: Lab) -> None:
    """It has no such table; who does not know of the table reads the rest as ever."""
    lab.acquire(["a"], purpose="x").release()
    database = sqlite3.connect(lab.directory / "registry.sqlite")
    version = database.execute("PRAGMA user_version").fetchone()
    assert database.execute("SELECT name FROM sqlite_master WHERE name = 'health'").fetchall() == []
    database.close()
    assert book.look() == {}
    book.failed("a", "x")
    database = sqlite3.connect(lab.directory / "registry.sqlite")
    assert database.execute("PRAGMA user_version").fetchone() == version
    database.close()


FAIL = """
import sys
from pathlib import Path
from pytest_hil.lab.health import Policy
from pytest_hil.lab.health_book import HealthBook
book = HealthBook(Path(sys.argv[1]), policy=Policy(after=10**6))
print("up", flush=True)
count = 0
while count < int(sys.argv[2]):
    book.failed("a", "x")
    count += 1
    print(count, flush=True)
"""


def test_several_write_at_once(book: HealthBook, start: Start) -> None:
    children = [start(FAIL, "50") for _ in range(4)]
    for child in children:
        child.communicate(timeout=120)
    assert book.look()["a"].errors == 200


def test_killed_anywhere(book: HealthBook, start: Start) -> None:
    """What was said to be written is, nothing is half so, and the next one is not in its way."""
    chance = random.Random(3)
    least = 0
    for _ in range(5):
        child = start(FAIL, str(10**6))
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(chance.randrange(2, 30))]
        os.kill(child.pid, signal.SIGKILL)
        said += child.stdout.read().splitlines(keepends=True)
        whole = [line for line in said if line.endswith("\n")]
        least += int(whole[-1])
        errors = book.look()["a"].errors
        assert least <= errors <= least + 1
        least = errors
