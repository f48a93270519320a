"""Which test runs now, in which phase, which comes next, and how it has gone so far."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_hil.console.capture import Mark
    from pytest_hil.console.session import Console
    from pytest_hil.crash import Crash
    from pytest_hil.errors import InfrastructureError
    from pytest_hil.plugin.selection import Wanted
    from pytest_hil.target import Opened


@dataclass(slots=True)
class Use:
    """A target that a test uses. ``label`` is "" for ``hil``, else the name of one of hil_open's.

    ``console`` and ``mark``: what it was saying when the test began to use it. ``opened_in``: how
    many seconds it took to have it; None: it was there before the test. ``crashes``: those of this
    attempt, ``crash_mark``: where the next ones begin (:class:`pytest_hil.crash_watch.CrashWatch`).
    ``taint``: its kernel's when the test began, and how many crashes it had said by then; None: not
    asked for, or not known. ``blind``: whether this attempt was told that crashes are not
    found any more.
    """

    label: str
    wanted: Wanted
    target: Opened
    opened_in: float | None = None
    console: Console = field(init=False)
    mark: Mark = field(init=False)
    crash_mark: int = field(init=False, default=0)
    crashes: list[Crash] = field(init=False, default_factory=list)
    taint: tuple[int, int] | None = field(init=False, default=None)
    blind: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.console = self.target.console
        self.mark = self.console.mark()


@dataclass(slots=True)
class Attempt:
    """One set-up, call and tear-down of a test; one that is run again has several.

    ``worst`` is its outcome so far: passed, skipped, failed or error. ``broke``: what broke on our
    side in a subtest; ``failed``: whether a subtest failed.
    """

    item: pytest.Item
    began: float = field(default_factory=time.monotonic)
    in_call: bool = False
    worst: str = "passed"
    uses: list[Use] = field(default_factory=list)
    broke: InfrastructureError | None = None
    failed: bool = False

    def worsen(self, outcome: str) -> None:
        """Note how a phase of it ended."""
        self.worst = max(self.worst, outcome, key=_SEVERITY.index)


@dataclass(slots=True)
class Now:
    """What this process is doing. ``attempt`` None: no test."""

    attempt: Attempt | None = None
    next: pytest.Item | None = None


NOW = pytest.StashKey[Now]()

_SEVERITY = ("passed", "skipped", "failed", "error")


def now(config: pytest.Config) -> Now:
    return config.stash[NOW]


def attempt_of(item: pytest.Item) -> Attempt | None:
    """The attempt at this test that goes on."""
    attempt = item.config.stash[NOW].attempt
    return attempt if attempt is not None and attempt.item is item else None


def worker_id(config: pytest.Config) -> str:
    """Which xdist worker this is; "" for none."""
    given: dict[str, object] = getattr(config, "workerinput", {})
    return str(given.get("workerid", ""))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[NOW] = Now()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    this = item.config.stash[NOW]
    this.next = nextitem
    try:
        return (yield)
    finally:
        this.next = this.attempt = None


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    item.config.stash[NOW].attempt = Attempt(item)
    return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    attempt = attempt_of(item)
    if attempt is None:
        return (yield)
    attempt.in_call = True
    try:
        return (yield)
    finally:
        attempt.in_call = False
