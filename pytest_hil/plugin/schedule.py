"""Scheduling of tests that need boards, in xdist's place: what decides is pytest_hil.lab.schedule.

Only for ``--dist load``, which ``-n`` means by itself: who picks another one gets it, and a worker
that finds its board taken waits for it. xdist need not be installed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.errors import InfrastructureError
from pytest_hil.plugin import chosen, needs
from pytest_hil.plugin.bench import bench_of, made_bench
from pytest_hil.plugin.items import attempt_of, worker_id
from pytest_hil.plugin.results import tried_again
from pytest_hil.plugin.selection import uses_target
from pytest_hil.plugin.status import status_of

if TYPE_CHECKING:
    from pytest_hil.lab.schedule import Schedule, Send

# An attribute of a report: the boards that its test has used so far.
BOARDS = "hil_boards"

# In pytest's cache: how many seconds each test took that needs a board.
_SECONDS = "hil/seconds"
_MOST_SECONDS = 20_000

_DIRECTORY = pytest.StashKey[Path]()


def ours(config: pytest.Config) -> bool:
    """Whether this is a controller whose tests we hand out."""

    from pytest_hil.config import QemuTarget

    if worker_id(config) or config.getoption("dist", default="no") != "load":
        return False
    return chosen.usable(config) and any(
        not isinstance(bench_of(config).describe(name), QemuTarget) for name in chosen.names(config)
    )


class BoardScheduling:
    """What xdist calls a scheduler; its ``node`` is a worker as the controller sees it."""

    def __init__(self, config: pytest.Config, directory: Path) -> None:
        from xdist.workermanage import parse_tx_spec_config  # type: ignore[import-untyped]

        self._config = config
        self._directory = directory
        self._workers_wanted = len(parse_tx_spec_config(config))
        self._nodes: dict[str, Any] = {}
        # Of those who have collected: their tests.
        self._collections: dict[str, list[str]] = {}
        self._tests: list[str] = []
        self._needs: needs.Needs = []
        self._took: dict[str, float] = {}
        # The workers that died, and what xdist knows of it.
        self._died: dict[str, str] = {}
        # Whose first test is run once more when this try is over.
        self._tried_again: set[str] = set()
        self._schedule: Schedule | None = None

    @property
    def nodes(self) -> list[Any]:
        return list(self._nodes.values())

    @property
    def collection_is_completed(self) -> bool:
        return self._schedule is not None or len(self._collections) >= self._workers_wanted

    @property
    def tests_finished(self) -> bool:
        return self._schedule is not None and self._schedule.finished

    @property
    def has_pending(self) -> bool:
        return self._schedule is not None and bool(self._schedule.left or self._schedule.in_hand)

    def add_node(self, node: Any) -> None:
        self._nodes[node.gateway.id] = node

    def add_node_collection(self, node: Any, collection: Sequence[str]) -> None:
        worker = node.gateway.id
        self._collections[worker] = list(collection)
        if self._schedule is not None and self._same(worker):
            self._schedule.join(worker)

    def schedule(self) -> None:
        """All have collected, or one more has."""
        if self._schedule is None:
            first, *others = self._collections
            self._tests = self._collections[first]
            self._needs = needs.read(self._directory, first, len(self._tests))
            self._schedule = _schedule(self._tests, self._needs, _known_seconds(self._config))
            for worker in [first, *filter(self._same, others)]:
                self._schedule.join(worker)
        self._deal()

    def _same(self, worker: str) -> bool:
        """Whether a worker has collected what the first one has; else it gets none of it."""
        from xdist.report import report_collection_diff  # type: ignore[import-untyped]

        own = self._collections[worker]
        first = next(iter(self._collections))
        difference = report_collection_diff(self._tests, own, first, worker)
        if difference:
            report = pytest.CollectReport(worker, "failed", difference, [])
            self._config.hook.pytest_collectreport(report=report)
            self._nodes[worker].shutdown()
        return not difference

    def mark_test_complete(self, node: Any, item_index: int, duration: float = 0) -> None:
        assert self._schedule is not None
        if self._needs[item_index]:
            self._took[self._tests[item_index]] = round(duration, 2)
        self._schedule.done(node.gateway.id, item_index, duration)
        self._deal()

    def mark_test_pending(self, item: str) -> None:
        assert self._schedule is not None
        self._schedule.again(self._tests.index(item))
        self._deal()

    def remove_pending_tests_from_node(self, node: Any, indices: Sequence[int]) -> None:
        raise NotImplementedError("no test is ever taken back from a worker that lives")

    def remove_node(self, node: Any) -> str | None:
        """A worker has ended. Returns the test that it was running; raises KeyError if it is not
        known.
        """
        worker = node.gateway.id
        del self._nodes[worker]
        self._collections.pop(worker, None)
        schedule, running = self._schedule, None
        if schedule is not None and worker in schedule:
            running = schedule.gone(worker)
        if running is None and worker in self._died:
            status_of(self._config).say(
                f"worker {worker} died while it ran no test ({self._died[worker]}): no outcome is "
                "missing, but something is wrong with the tests or this host"
            )
        if schedule is not None:
            self._deal()
        return None if running is None else self._tests[running]

    # Hooks: what the workers report of their tests, and what the next run will know of them.

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if error is not None:
            self._died[node.gateway.id] = str(error)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """A test has begun, on the worker that has it."""
        if self._schedule is not None:
            for worker, test in self._schedule.first().items():
                if self._tests[test] == nodeid:
                    self._schedule.began(worker)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        node = getattr(report, "node", None)
        if node is None or self._schedule is None or node.gateway.id not in self._schedule:
            return
        worker = node.gateway.id
        if report.when == "setup":
            self._tried_again.discard(worker)
        if tried_again(report):
            self._tried_again.add(worker)
        last = report.when == "teardown" and worker not in self._tried_again
        self._schedule.reported(worker, last=last)
        if boards := getattr(report, BOARDS, None):
            self._schedule.has(worker, boards)

    def pytest_sessionfinish(self) -> None:
        cache = getattr(self._config, "cache", None)
        if cache is not None and self._took:
            known = {**_known_seconds(self._config), **self._took}
            cache.set(_SECONDS, dict(list(known.items())[-_MOST_SECONDS:]))

    def _deal(self) -> None:
        from pytest_hil.lab.schedule import Send

        assert self._schedule is not None
        for worker, node in self._nodes.items():
            # xdist tells them to end for reasons of its own, such as --maxfail.
            if node.shutting_down and worker in self._schedule:
                self._schedule.ends(worker)
        surplus = 0
        for order in self._schedule.deal():
            node = self._nodes[order.worker]
            if isinstance(order, Send):
                self._send(node, order)
            else:
                node.shutdown()
                surplus += order.surplus
        if surplus:
            self._tell_surplus(surplus)

    def _send(self, node: Any, order: Send) -> None:
        if order.board:
            needs.tell(self._directory, order.worker, order.test, order.board)
        try:
            node.send_runtest_some([order.test])
        except OSError:
            pass  # it has died, and xdist will say so: then its tests go to others

    def _tell_surplus(self, surplus: int) -> None:
        assert self._schedule is not None
        boards, has = sorted(self._schedule.boards), "has" if surplus == 1 else "have"
        status_of(self._config).say(
            f"{surplus} of {self._workers_wanted} workers {has} no board: "
            f"the tests need {_either(boards)}, and the others have "
            + ("it" if len(boards) == 1 else "them")
        )


def _either(names: Sequence[str]) -> str:
    few = [*names[:3], f"{len(names) - 3} others"] if len(names) > 4 else names
    return " or ".join(few)


def _known_seconds(config: pytest.Config) -> dict[str, float]:
    """How long the tests took in earlier runs, as far as pytest's cache knows."""
    cache = getattr(config, "cache", None)
    found = None if cache is None else cache.get(_SECONDS, None)
    items = found.items() if isinstance(found, dict) else ()
    return {test: took for test, took in items if isinstance(took, int | float) and 0 < took < 1e6}


def _schedule(tests: Sequence[str], wanted: needs.Needs, seconds: Mapping[str, float]) -> Schedule:
    from pytest_hil.lab.schedule import Schedule, Task

    return Schedule(
        [
            Task(boards, test.partition("::")[0], seconds.get(test, 0.0))
            for test, boards in zip(tests, wanted, strict=True)
        ]
    )


# --- in the controller ---


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker is about to be started: tell it where to say what its tests need."""
    config: pytest.Config = node.config
    if not ours(config):
        return
    if _DIRECTORY not in config.stash:
        from pytest_hil.qemu import runtime

        try:
            runtime.reap()  # what killed runs left
            config.stash[_DIRECTORY] = runtime.directory("schedule")
        except InfrastructureError as error:
            status_of(config).say(f"tests are handed out without regard to boards: {error.message}")
            return
    node.workerinput[needs.DIRECTORY] = str(config.stash[_DIRECTORY])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config) -> BoardScheduling | None:
    directory = config.stash.get(_DIRECTORY, None)
    if directory is None:
        return None
    found = BoardScheduling(config, directory)
    config.pluginmanager.register(found, "hil-board-scheduling")
    return found


def pytest_unconfigure(config: pytest.Config) -> None:
    directory = config.stash.get(_DIRECTORY, None)
    if directory is not None:
        from pytest_hil.qemu import runtime

        runtime.remove(directory)


# --- in whatever runs tests ---


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Between tests that need no board, others may have ours: at the end of one that uses it the
    board looks itself.
    """
    result = yield
    if not uses_target(item) and (bench := made_bench(item.config)) is not None:
        # It says nothing of this test if the lab cannot be looked at.
        with contextlib.suppress(InfrastructureError):
            bench.give_way()
    return result


# --- in a worker ---


# Before xdist tells the controller that this worker has collected.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    config = session.config
    given: dict[str, str] = getattr(config, "workerinput", {})
    if needs.DIRECTORY in given:
        directory, worker = Path(given[needs.DIRECTORY]), worker_id(config)
        needs.write(directory, worker, session.items)
        needs.listen(config, directory, worker, session.items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    if attempt is not None and needs.DIRECTORY in getattr(item.config, "workerinput", ()):
        from pytest_hil.config import QemuTarget

        uses = [one for one in attempt.uses if not isinstance(one.wanted.target, QemuTarget)]
        if uses:
            setattr(report, BOARDS, [one.target.name for one in uses])
    return report
