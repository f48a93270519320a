"""Whole runs of a model of xdist's workers: every test is run, no board has two, nobody hangs."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.lab.schedule import Schedule, Send, Task

BOARDS = ("a", "b", "c", "d")

tasks = st.lists(
    st.builds(
        Task,
        boards=st.frozensets(st.sampled_from(BOARDS), max_size=3),
        file=st.sampled_from(("x", "y", "z")),
        seconds=st.sampled_from((0.0, 0.1, 5.0)),
    ),
    max_size=30,
)


@dataclass
class Worker:
    """As xdist's: it begins a test when it knows the next one, or that there is none.

    ``board``: its lease, which it keeps until it needs another one, or is gone.
    """

    queue: list[tuple[int, str]] = field(default_factory=list)
    told_to_end: bool = False
    running: bool = False
    board: str = ""

    @property
    def can_begin(self) -> bool:
        enough = len(self.queue) > 1 or self.told_to_end
        return bool(self.queue) and enough and not self.running

    @property
    def has_ended(self) -> bool:
        return self.told_to_end and not self.queue


class Run:
    """A controller with its workers; ``strangers``: boards that others have, for good."""

    def __init__(self, tasks: list[Task], workers: int, strangers: frozenset[str]) -> None:
        self.tasks = tasks
        self.strangers = strangers
        self.schedule = Schedule(tasks)
        self.workers: dict[str, Worker] = {}
        self.ran: list[int] = []
        self.crashed: list[int] = []
        self.started = 0
        for _ in range(workers):
            self.start()
        self.deal()

    def start(self) -> None:
        self.started += 1
        name = f"w{self.started}"
        self.workers[name] = Worker()
        self.schedule.join(name)

    def deal(self) -> None:
        for order in self.schedule.deal():
            worker = self.workers[order.worker]
            assert not worker.told_to_end
            if isinstance(order, Send):
                boards = self.tasks[order.test].boards
                assert order.board in boards if boards else order.board == ""
                worker.queue.append((order.test, order.board))
            else:
                worker.told_to_end = True

    def steps(self) -> list[tuple[str, str]]:
        """What can happen next."""
        found = []
        for name, worker in self.workers.items():
            if worker.can_begin:
                found.append(("begin", name))
            if worker.running:
                found.append(("done", name))
            if worker.has_ended:
                found.append(("gone", name))
        return found

    def step(self, what: str, name: str, *, seconds: float = 1.0) -> None:
        worker = self.workers[name]
        if what == "begin":
            worker.running = True
            self.schedule.began(name)
            self.lease(name, worker)
            return
        if what == "done":
            test, _ = worker.queue.pop(0)
            worker.running = False
            self.ran.append(test)
            self.schedule.done(name, test, seconds)
        else:
            del self.workers[name]
            running = self.schedule.gone(name)
            if what == "crash":
                if running is not None:
                    assert worker.queue[0][0] == running
                    self.crashed.append(running)
                assert running is not None or not worker.running
                self.start()
            else:
                assert running is None
        self.deal()

    def lease(self, name: str, worker: Worker) -> None:
        """As the fixture does it: what it has if that fits, then what is meant, then any other."""
        test, meant = worker.queue[0]
        boards = self.tasks[test].boards
        if not boards or worker.board in boards:
            return
        worker.board = ""
        held = {one.board for one in self.workers.values()}
        assert meant not in held or self.strangers, "the one that is meant for it is free"
        wish = [meant, *sorted(boards)]
        free = [one for one in wish if one not in held and one not in self.strangers]
        if free:
            worker.board = free[0]
            self.schedule.has(name, [free[0]])


@given(
    tasks=tasks,
    workers=st.integers(1, 5),
    strangers=st.frozensets(st.sampled_from(BOARDS)),
    data=st.data(),
)
def test_every_test_is_run_or_was_running_when_its_worker_died(
    tasks: list[Task], workers: int, strangers: frozenset[str], data: st.DataObject
) -> None:
    run = Run(tasks, workers, data.draw(st.sampled_from([frozenset[str](), strangers])))
    crashes = data.draw(st.integers(0, 6))
    while run.workers:
        steps = run.steps()
        assert steps, "everybody waits for somebody"
        if crashes:
            steps += [("crash", name) for name in run.workers]
        what, name = data.draw(st.sampled_from(steps))
        crashes -= what == "crash"
        run.step(what, name, seconds=data.draw(st.sampled_from((0.001, 1.0))))
    assert sorted(run.ran + run.crashed) == list(range(len(tasks)))
    assert run.schedule.finished
    assert run.schedule.left == 0


@given(tasks=tasks, workers=st.integers(1, 5), data=st.data())
def test_nobody_is_idle_who_could_run_something(
    tasks: list[Task], workers: int, data: st.DataObject
) -> None:
    run = Run(tasks, workers, frozenset())
    while run.workers:
        taken = {one.board for one in run.workers.values() if not one.told_to_end}
        taken |= {board for one in run.workers.values() for _, board in one.queue}
        left = set(range(len(tasks))) - set(run.ran)
        left -= {test for one in run.workers.values() for test, _ in one.queue}
        for worker in run.workers.values():
            if worker.queue and not worker.can_begin and not worker.running:
                raise AssertionError("it has a test, and waits without a reason")
            if worker.told_to_end and len(worker.queue) < 2:
                can = [n for n in left if not tasks[n].boards or worker.board in tasks[n].boards]
                assert not can, "it was told to end, and could have gone on"
        what, name = data.draw(st.sampled_from(run.steps()))
        run.step(what, name)
    assert sorted(run.ran) == list(range(len(tasks)))
