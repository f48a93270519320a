"""Which test goes to which worker, so that nobody waits for a board while another test could run.

No xdist, no files, no clock: facts in, decisions out. What this rests on: a worker runs a test only
once it knows the next one, or that there is none. So who has one test in hand gets a further one or
is told to end; only who has none may be left waiting. A worker has a board from the first test
that it runs on one until it takes another one or ends.

Leases hold whatever is decided here: a board that is not where it is thought to be costs time only.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

# Seconds. Quicker tests are sent several at once: the way to a worker takes a millisecond.
_QUICK = 0.1
_MOST_IN_HAND = 10


@dataclass(frozen=True, slots=True)
class Task:
    """What a test needs: one of ``boards``; none of them: nothing that there is only so much of.

    ``file``: tests of one like to be together. ``seconds``: how long it takes, 0 if unknown.
    """

    boards: frozenset[str] = frozenset()
    file: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Send:
    """Give a worker one more test; ``board`` is the one that is meant for it ("": none)."""

    worker: str
    test: int
    board: str


@dataclass(frozen=True, slots=True)
class End:
    """Tell a worker that nothing comes after what it has in hand.

    ``surplus``: it never had anything, and others have all boards of the tests that are left.
    """

    worker: str
    surplus: bool = False


@dataclass(slots=True)
class _Hand:
    """A test that a worker has, and the board that is meant for it."""

    test: int
    board: str


@dataclass(slots=True)
class _Worker:
    """``hand``: what it has to run, in order. ``now``: the board that it has; ``board``: the one
    that it will have after all in hand.
    """

    name: str
    hand: list[_Hand] = field(default_factory=list)
    now: str = ""
    board: str = ""
    file: str = ""
    began: bool = False
    reported: bool = False
    ending: bool = False
    used: bool = False
    seconds: float = _QUICK

    @property
    def boards(self) -> set[str]:
        """All that nobody else can have now."""
        return {self.now, self.board, *(one.board for one in self.hand)} - {""}


@dataclass(slots=True, eq=False)
class _Group:
    """Tests that need the same and are of one file, in their order."""

    boards: frozenset[str]
    file: str
    tests: list[int] = field(default_factory=list)
    seconds: float = 0.0


class Schedule:
    """Tests by their number, workers by their name."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks
        self._workers: dict[str, _Worker] = {}
        self._groups: dict[tuple[frozenset[str], str], _Group] = {}
        # How long a test is thought to take of which that is not known.
        known = [task.seconds for task in tasks if task.seconds > 0]
        self._usual = sum(known) / len(known) if known else 1.0
        # How many tests no worker has in hand.
        self.left = 0
        # Boards that those did not get for whom they were meant: others have them, or they are ill.
        self._doubtful: set[str] = set()
        # Tests that were the next of a worker that died.
        self._spared: set[int] = set()
        self._put_back(reversed(range(len(tasks))))

    # --- facts ---

    def join(self, worker: str) -> None:
        """A worker is ready for tests."""
        self._workers[worker] = _Worker(worker)

    def began(self, worker: str) -> None:
        """A worker runs the first test that it has in hand."""
        one = self._workers[worker]
        one.began = True
        one.reported = False
        one.now = one.hand[0].board or one.now

    def reported(self, worker: str, *, last: bool) -> None:
        """A worker has reported a phase of the first test that it has in hand."""
        self._workers[worker].reported = last

    def has(self, worker: str, boards: Sequence[str]) -> None:
        """For its first test a worker has taken these boards, perhaps not the one meant for it."""
        one = self._workers[worker]
        self._doubtful.difference_update(boards)
        meant = one.hand[0].board if one.hand else one.board
        if meant in boards:
            return
        board = boards[0]
        for other in self._workers.values():
            _forget(other, board)
        if meant:
            self._doubtful.add(meant)
        for each in one.hand:
            if each.board == meant and board in self._tasks[each.test].boards:
                each.board = board
        one.now = board
        if one.board == meant and all(each.board != meant for each in one.hand):
            one.board = board

    def done(self, worker: str, test: int, seconds: float = _QUICK) -> None:
        """A worker has run a test."""
        one = self._workers[worker]
        place = next(n for n, each in enumerate(one.hand) if each.test == test)
        one.now = one.hand.pop(place).board or one.now
        one.began = one.reported = False
        one.seconds = seconds

    def ends(self, worker: str) -> None:
        """Somebody else has told a worker to end."""
        self._workers[worker].ending = True

    def gone(self, worker: str) -> int | None:
        """A worker has ended, however. Returns the test that it was running; the others go on.

        Who had not begun its first test was not running it. The second time it counts as if: what
        happens before a test's beginning may be why its workers die. And one of which all was
        reported had been run, though nobody had said so yet.
        """
        one = self._workers.pop(worker)
        running = None
        if one.hand and one.reported:
            one.hand.pop(0)
        elif one.hand and (one.began or one.hand[0].test in self._spared):
            running = one.hand.pop(0).test
        elif one.hand:
            self._spared.add(one.hand[0].test)
        self._put_back(each.test for each in one.hand)
        return running

    def again(self, test: int) -> None:
        """A test is to be run once more."""
        self._put_back([test])

    # --- what is known ---

    @property
    def finished(self) -> bool:
        """Whether nothing is left to be decided."""
        return not self.left and all(one.ending or not one.hand for one in self._workers.values())

    @property
    def in_hand(self) -> bool:
        """Whether a worker has any test."""
        return any(one.hand for one in self._workers.values())

    @property
    def boards(self) -> set[str]:
        """The boards that the tests need which are left."""
        return set().union(*(one.boards for one in self._groups.values()))

    def __contains__(self, worker: str) -> bool:
        return worker in self._workers

    def first(self) -> dict[str, int]:
        """The first test that each worker has in hand."""
        return {one.name: one.hand[0].test for one in self._workers.values() if one.hand}

    # --- decisions ---

    def deal(self) -> list[Send | End]:
        """What is to be done now, in this order."""
        found: list[Send | End] = []
        nothing: list[_Worker] = []
        active = [one for one in self._workers.values() if not one.ending]
        while wanting := [one for one in active if len(one.hand) < self._depth(one)]:
            # Each its first test before anybody gets a second one; who has a board keeps it.
            one = min(wanting, key=lambda each: (len(each.hand), not each.board))
            order = self._next(one)
            if order is None:
                active.remove(one)
                nothing.append(one)
            else:
                found.append(order)
        if not self._must_wait():
            for one in nothing:
                if len(one.hand) < 2:
                    one.ending = True
                    found.append(End(one.name, surplus=not one.used and self.left > 0))
        return found

    def _depth(self, worker: _Worker) -> int:
        """How many tests a worker is to have in hand."""
        if worker.seconds >= _QUICK:
            return 2
        return 2 + min(_MOST_IN_HAND - 2, self.left // (4 * len(self._workers)))

    def _next(self, worker: _Worker) -> Send | None:
        """Something for the board that it has; else for one that is free; else for no board."""
        group, board = None, worker.board
        if board:
            group = self._best(worker, board)
        if group is None and (board := self._free_board(worker)):
            group = self._best(worker, board)
        if group is None:
            group = self._best(worker, "")
        if group is None:
            return None
        test = self._take(group)
        worker.used = True
        worker.file = group.file
        worker.board = board or worker.board
        worker.hand.append(_Hand(test, board))
        return Send(worker.name, test, board)

    def _best(self, worker: _Worker, board: str) -> _Group | None:
        """Where a worker's next test on a board comes from: what fits the fewest boards, then its
        own file, then one that nobody is at, then where most is left.
        """
        busy = {one.file for one in self._workers.values() if one is not worker}
        fitting = [
            one
            for one in self._groups.values()
            if (board in one.boards if board else not one.boards)
        ]
        return min(
            fitting,
            key=lambda one: (
                len(one.boards),
                one.file != worker.file,
                one.file in busy,
                -one.seconds,
                one.tests[-1],
            ),
            default=None,
        )

    def _free_board(self, worker: _Worker) -> str:
        """The board that no other has and for which most is left; "" if there is none."""
        others = [one.boards for one in self._workers.values() if one is not worker]
        taken = set().union(*others)
        load: dict[str, float] = {}
        for group in self._groups.values():
            for board in group.boards - taken:
                load[board] = load.get(board, 0.0) + group.seconds / len(group.boards)
        return min(load, key=lambda one: (one in self._doubtful, -load[one], one), default="")

    def _must_wait(self) -> bool:
        """Whether something is left for which those who have the boards have to end or move first:
        then somebody must be there for it.
        """
        kept = {one.board for one in self._workers.values() if not one.ending}
        return any(one.boards and not one.boards & kept for one in self._groups.values())

    def _take(self, group: _Group) -> int:
        test = group.tests.pop()
        group.seconds -= self._seconds(test)
        self.left -= 1
        if not group.tests:
            del self._groups[group.boards, group.file]
        return test

    def _put_back(self, tests: Iterable[int]) -> None:
        for test in tests:
            task = self._tasks[test]
            group = self._groups.setdefault(
                (task.boards, task.file), _Group(task.boards, task.file)
            )
            # The last one is the next one.
            bisect.insort(group.tests, test, key=int.__neg__)
            group.seconds += self._seconds(test)
            self.left += 1

    def _seconds(self, test: int) -> float:
        return self._tasks[test].seconds or self._usual


def _forget(worker: _Worker, board: str) -> None:
    """It has not the board that it was thought to have."""
    if worker.now == board:
        worker.now = ""
    if worker.board == board:
        worker.board = ""
    for one in worker.hand:
        if one.board == board:
            one.board = ""
