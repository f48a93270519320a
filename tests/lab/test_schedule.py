"""Which test goes where: tables. What holds in every run is in test_schedule_runs.py."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pytest_hil.lab.schedule import End, Schedule, Send, Task


def task(boards: str = "", file: str = "", seconds: float = 0.0) -> Task:
    return Task(frozenset(boards.split()), file, seconds)


def schedule(tasks: Sequence[Task], *workers: str) -> Schedule:
    found = Schedule(tasks)
    for worker in workers:
        found.join(worker)
    return found


def sent(schedule: Schedule) -> list[tuple[str, int, str]]:
    return [(one.worker, one.test, one.board) for one in schedule.deal() if isinstance(one, Send)]


def of(schedule: Schedule, worker: str) -> list[int]:
    """The tests that a worker gets now."""
    return [test for who, test, _board in sent(schedule) if who == worker]


A, B = task("a"), task("b")
EITHER, NONE = task("a b"), task()


@pytest.mark.parametrize(
    ("tasks", "workers", "first"),
    [
        pytest.param([NONE, NONE], 2, {"w1": [0], "w2": [1]}, id="each one before any has two"),
        pytest.param([EITHER] * 4, 2, {"w1": [0, 2], "w2": [1, 3]}, id="a board each"),
        pytest.param([A, A, A, A, B], 2, {"w1": [0, 1], "w2": [4]}, id="most to do goes first"),
        pytest.param([EITHER, EITHER, B], 1, {"w1": [2, 0]}, id="scarcest first"),
        pytest.param([NONE, NONE, A, A], 2, {"w1": [2, 3], "w2": [0, 1]}, id="boards, then others"),
        pytest.param([A, A, A], 3, {"w1": [0, 1]}, id="one board, one worker"),
        pytest.param([A, A, NONE], 3, {"w1": [0, 1], "w2": [2]}, id="the others do what they can"),
        pytest.param([], 2, {}, id="nothing"),
    ],
)
def test_who_begins_with_what(tasks: list[Task], workers: int, first: dict[str, list[int]]) -> None:
    found: dict[str, list[int]] = {}
    for worker, test, board in sent(schedule(tasks, *(f"w{n + 1}" for n in range(workers)))):
        found.setdefault(worker, []).append(test)
        assert board in tasks[test].boards or not (board or tasks[test].boards)
    assert found == first


def test_what_has_less_to_do_but_takes_longer_is_most() -> None:
    one = schedule([task("a", seconds=1), task("a", seconds=1), task("b", seconds=9)], "w1")
    assert sent(one)[0] == ("w1", 2, "b")


def test_a_board_stays_with_its_worker() -> None:
    one = schedule([task("a b", "x.py")] * 6 + [task("a b", "y.py")] * 6, "w1", "w2")
    boards: dict[str, set[str]] = {}
    order = sent(one)
    hands: dict[str, list[int]] = {"w1": [], "w2": []}
    while order:
        for worker, test, board in order:
            boards.setdefault(worker, set()).add(board)
            hands[worker].append(test)
        busy = max(hands, key=lambda each: len(hands[each]))
        if hands[busy]:
            one.done(busy, hands[busy].pop(0))
        order = sent(one)
    assert boards == {"w1": {"a"}, "w2": {"b"}}


def test_the_files_are_shared_out() -> None:
    one = schedule([task(file="x")] * 4 + [task(file="y")] * 4, "w1", "w2")
    assert of(one, "w1") == [0, 1]
    one.done("w2", 4)
    one.done("w1", 0)
    assert sent(one) == [("w1", 2, ""), ("w2", 6, "")]


def test_who_has_nothing_left_ends() -> None:
    one = schedule([A, A, A, NONE], "w1", "w2", "w3")
    ends = [order for order in one.deal() if isinstance(order, End)]
    # w2 has the last test in hand, and runs it only if it knows that none follows.
    assert ends == [End("w2"), End("w3", surplus=True)] or ends == [
        End("w3", surplus=True),
        End("w2"),
    ]
    one.done("w1", 0)
    assert one.deal() == [Send("w1", 2, "a")]
    one.done("w1", 1)
    assert one.deal() == [End("w1")]
    assert one.finished


def test_a_worker_moves_when_its_board_has_nothing_left() -> None:
    one = schedule([A, B, B, B], "w1")
    assert sent(one) == [("w1", 1, "b"), ("w1", 2, "b")]
    one.done("w1", 1)
    assert sent(one) == [("w1", 3, "b")]
    one.done("w1", 2)
    assert sent(one) == [("w1", 0, "a")]


def test_a_dead_workers_tests_and_board_are_for_the_next_one() -> None:
    one = schedule([A, A, A, B, B], "w1", "w2")
    one.deal()
    one.began("w1")
    assert one.gone("w1") == 0
    assert not one.finished
    assert sent(one) == []
    one.join("w3")
    assert sent(one) == [("w3", 1, "a"), ("w3", 2, "a")]


def test_who_dies_before_a_test_was_not_running_it_but_not_twice() -> None:
    one = schedule([A, A, A], "w1")
    one.deal()
    assert one.gone("w1") is None
    one.join("w2")
    assert of(one, "w2") == [0, 1]
    assert one.gone("w2") == 0
    one.join("w3")
    assert of(one, "w3") == [1, 2]


def test_who_dies_after_a_tests_last_report_was_not_running_it() -> None:
    """It has its outcome; another one, that its worker died, would be a second."""
    one = schedule([A, A, A], "w1")
    one.deal()
    one.began("w1")
    one.reported("w1", last=False)
    one.reported("w1", last=True)
    assert one.gone("w1") is None
    one.join("w2")
    assert of(one, "w2") == [1, 2]
    one.began("w2")
    one.reported("w2", last=True)
    one.reported("w2", last=False)  # it is run once more, by a plugin that does so
    assert one.gone("w2") == 1


def test_what_needs_the_board_of_one_that_ends_waits_for_that() -> None:
    one = schedule([A, A, B], "w1", "w2")
    assert End("w2") in one.deal()
    one.began("w2")
    one.done("w1", 0)
    assert one.deal() == [End("w1")]
    one.again(0)
    one.join("w3")
    assert one.deal() == [], "w1 has the board until it is gone"
    one.done("w1", 1)
    assert one.deal() == []
    assert one.gone("w1") is None
    assert one.deal() == [Send("w3", 0, "a"), End("w3")]


def test_a_board_that_was_not_to_be_had() -> None:
    one = schedule([EITHER] * 3 + [A] * 3, "w1")
    assert sent(one) == [("w1", 3, "a"), ("w1", 4, "a")]
    other = schedule([EITHER] * 5, "w1")
    assert [board for _, _, board in sent(other)] == ["a", "a"]
    other.began("w1")
    other.has("w1", ["b"])
    other.done("w1", 0)
    assert sent(other) == [("w1", 2, "b")], "it stays with the one that it got"
    other.join("w2")
    assert [board for _, _, board in sent(other)] == ["a", "a"]


def test_a_board_that_a_worker_was_thought_to_have() -> None:
    one = schedule([EITHER] * 8, "w1", "w2")
    one.deal()
    one.began("w1")
    one.has("w1", ["b"])
    one.done("w2", 1)
    assert sent(one) == [("w2", 4, "a")]


def test_quick_tests_are_sent_several_at_once() -> None:
    one = schedule([NONE] * 100, "w1")
    assert len(of(one, "w1")) == 2
    one.done("w1", 0, 0.001)
    assert len(of(one, "w1")) == 9
    one.done("w1", 1, 2.0)
    assert of(one, "w1") == []


def test_who_was_told_to_end_by_others_gets_nothing() -> None:
    one = schedule([A] * 4 + [B] * 4, "w1", "w2")
    one.deal()
    one.ends("w1")
    one.done("w1", 0)
    assert of(one, "w1") == []


def test_the_board_that_a_worker_leaves_is_its_own_until_it_has_the_next_one() -> None:
    one = schedule([task("a", seconds=9), task("a", seconds=9), B], "w1")
    one.deal()
    one.began("w1")
    one.done("w1", 0)
    assert sent(one) == [("w1", 2, "b")]
    one.began("w1")
    one.again(0)
    one.join("w2")
    assert one.deal() == [], "w1 uses a, and w2 is kept for when it does not"
    one.done("w1", 1)
    assert one.deal() == [Send("w1", 0, "a"), End("w2", surplus=False)]
    one.began("w1")
    one.done("w1", 2)
    assert one.deal() == [End("w1")]


def test_who_dies_between_two_tests_was_running_neither() -> None:
    one = schedule([A, A, A], "w1")
    one.deal()
    one.began("w1")
    one.done("w1", 0)
    one.deal()
    assert one.gone("w1") is None
    one.join("w2")
    assert of(one, "w2") == [1, 2]
