"""Who is next, and that no death goes unseen."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.lab.queue import AGE, PRIORITIES, Board, Plan, Waiter, assign, order, plans, stuck

NAMES = ("a", "b", "c", "d")
USERS = ("one", "two")


def waiter(number: int, *wants: str, priority: int = 0, since: float | None = None) -> Waiter:
    when = float(number) if since is None else since
    return Waiter(number, wants or ("a",), when, "one", ("", number, 0), priority)


@st.composite
def waiters(draw: st.DrawFn) -> list[Waiter]:
    found = []
    for number in range(1, draw(st.integers(0, 8)) + 1):
        wants = draw(st.permutations(NAMES))[: draw(st.integers(1, 4))]
        found.append(
            Waiter(
                number,
                tuple(wants),
                draw(st.floats(0, 2000)),
                draw(st.sampled_from(USERS)),
                ("", draw(st.integers(1, 10)), 0),
                draw(st.sampled_from(PRIORITIES)),
            )
        )
    return found


boards = st.dictionaries(
    st.sampled_from(NAMES),
    st.builds(
        Board,
        holder=st.none() | st.integers(1, 14).map(lambda pid: ("", pid, 0)),
        reserved=st.sampled_from(("", *USERS)),
        until=st.floats(1, 100),
    ),
)


def test_first_come_first_served() -> None:
    assert [one.number for one in order([waiter(3), waiter(1), waiter(2)])] == [1, 2, 3]
    assert assign([waiter(2), waiter(1)], {}) == {1: "a"}


def test_a_higher_priority_goes_first() -> None:
    assert [one.number for one in order([waiter(1), waiter(2, priority=1)])] == [2, 1]


def test_waiting_counts() -> None:
    patient = waiter(1, since=0)
    late = waiter(2, priority=2, since=2 * AGE + 1)
    assert order([late, patient]) == [patient, late]


def test_the_first_free_one_in_the_given_order() -> None:
    held = {"a": Board(("", 9, 0))}
    assert assign([waiter(1, "a", "c", "b")], held) == {1: "c"}


def test_who_gets_another_board_is_in_nobodys_way() -> None:
    assert assign([waiter(1, "a", "b"), waiter(2, "b", "a")], {}) == {1: "a", 2: "b"}


def test_reserved_boards_are_for_one_user() -> None:
    kept = {"a": Board(reserved="two", until=70.0)}
    two = replace(waiter(2), user="two")
    assert plans([waiter(1), two], kept) == {1: Plan(until=70.0), 2: Plan(take="a")}


def test_a_line_watches_the_one_before() -> None:
    holder = ("", 99, 0)
    found = plans([waiter(1), waiter(2), waiter(3)], {"a": Board(holder)})
    assert [sorted(found[number].watch) for number in (1, 2, 3)] == [
        [holder],
        [("", 1, 0)],
        [("", 2, 0)],
    ]


@given(waiters(), boards)
def test_a_board_goes_to_one_who_wants_it_and_may_have_it(
    line: list[Waiter], there: dict[str, Board]
) -> None:
    given = assign(line, there)
    assert len(set(given.values())) == len(given)
    for one in line:
        if (name := given.get(one.number)) is not None:
            assert name in one.wants
            board = there.get(name, Board())
            assert board.holder is None
            assert board.reserved in ("", one.user)


@given(waiters(), boards)
def test_nobody_with_precedence_is_passed_over(line: list[Waiter], there: dict[str, Board]) -> None:
    """Who gets nothing could have had no board that somebody behind, or nobody, got."""
    given = assign(line, there)
    before: set[str] = set()
    for one in order(line):
        if one.number in given:
            before.add(given[one.number])
            continue
        for name in one.wants:
            board = there.get(name, Board())
            assert board.holder is not None or not board.is_for(one.user) or name in before


@given(waiters(), st.floats(0, 1e6))
def test_the_order_does_not_depend_on_when_we_look(line: list[Waiter], later: float) -> None:
    """So nobody needs to look again because time has passed."""
    first = [one.number for one in order(line)]
    newcomer = waiter(99, since=2000 + later)
    assert [one.number for one in order([*line, newcomer]) if one.number != 99] == first


@given(waiters(), st.sampled_from(PRIORITIES))
def test_nobody_starves(line: list[Waiter], priority: int) -> None:
    """Whoever comes later than a bound goes after all who are there."""
    bound = (max(PRIORITIES) - min(PRIORITIES)) * AGE
    newcomer = waiter(99, priority=priority, since=2000 + bound + 1)
    assert order([newcomer, *line])[-1] == newcomer


@given(waiters(), boards, st.sets(st.integers(1, 14)))
def test_a_death_that_matters_is_seen(
    line: list[Waiter], there: dict[str, Board], killed: set[int]
) -> None:
    """However many die at once: if somebody can go on now, a survivor watched one of the dead."""
    dead = {("", pid, 0) for pid in killed}
    before = plans(line, there)
    left = [one for one in line if one.process not in dead]
    now_there = {
        name: replace(board, holder=None) if board.holder in dead else board
        for name, board in there.items()
    }
    after = plans(left, now_there)
    woken = [one for one in left if before[one.number].watch & dead]
    can_go_on = [
        one
        for one in left
        if after[one.number].take is not None and before[one.number].take is None
    ]
    assert woken or not can_go_on


def test_who_waits_for_each_other() -> None:
    a = replace(waiter(1, "b"), keeps=("a",))
    b = replace(waiter(2, "a"), keeps=("b",))
    assert stuck([a]) == stuck([b]) == []  # who has what it wants may be done with it soon
    assert stuck([a, b]) == [a, b]
    # One that would do with something else gets it some day.
    assert stuck([a, replace(b, wants=("a", "c"))]) == []
    # One that keeps nothing is stuck with them, if it wants theirs.
    assert stuck([a, b, waiter(3, "a"), waiter(4, "c")]) == [a, b, waiter(3, "a")]


def test_a_circle_of_three() -> None:
    circle = [replace(waiter(n, "bca"[n]), keeps=("abc"[n],)) for n in range(3)]
    assert stuck(circle) == circle
    assert stuck(circle[1:]) == []
