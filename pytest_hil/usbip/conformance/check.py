"""What a check is, what comes of it, and running them: every step, check and run is bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum, unique
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_hil.usbip.conformance.client import Client

# Seconds: for one answer, and for all of a run. One check has as much as a few answers.
STEP = 5.0
TOTAL = 180.0
_STEPS = 4


@unique
class Result(StrEnum):
    PASS = "pass"
    FAIL = "fail"
    NOT_APPLICABLE = "not applicable"


class Broken(Exception):
    """The server does not do what the rule says."""

    def __init__(self, expected: str, seen: str) -> None:
        super().__init__(f"expected {expected}; seen {seen}")
        self.expected = expected
        self.seen = seen


class NotApplicable(Exception):
    """The device, or this server, has nothing that the check could be done with."""


class Clock:
    """Until when a step, the check and the whole run may take. Seconds."""

    def __init__(self, step: float, check: float, end: float) -> None:
        self._step = step
        self._end = min(time.monotonic() + check, end)

    def deadline(self) -> float:
        """When a step that begins now has to be over (``time.monotonic``). Raises Broken."""
        now = time.monotonic()
        if now >= self._end:
            raise Broken("an end in time", "the time of this check, or of the run, is up")
        return min(now + self._step, self._end)

    def quiet(self) -> float:
        """When silence has lasted long enough to be one: the rule sets no time."""
        return min(self.deadline(), time.monotonic() + min(self._step / 4, 0.5))


Body = Callable[["Client"], None]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, and how it is looked at. ``source`` is where the rule is from."""

    id: str
    title: str
    source: str
    body: Body
    serves_on: bool = False  # afterwards, the next client must be served


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a check; ``seen`` is in hex where it is bytes."""

    check: Check
    result: Result
    expected: str = ""
    seen: str = ""
    reason: str = ""
    seconds: float = 0.0

    def row(self) -> dict[str, str | float]:
        """As plain values, for JSON."""
        return {
            "id": self.check.id,
            "title": self.check.title,
            "source": self.check.source,
            "result": self.result.value,
            "expected": self.expected,
            "seen": self.seen,
            "reason": self.reason,
            "seconds": round(self.seconds, 3),
        }


class Group:
    """The checks of one file, in their order: a decorator that collects them."""

    def __init__(self, name: str, *, serves_on: bool = False) -> None:
        self.name = name
        self.checks: list[Check] = []
        self._serves_on = serves_on

    def check(
        self, name: str, title: str, source: str, *, serves_on: bool | None = None
    ) -> Callable[[Body], Body]:
        def add(body: Body) -> Body:
            after = self._serves_on if serves_on is None else serves_on
            self.checks.append(Check(f"{self.name}-{name}", title, source, body, after))
            return body

        return add


class Runner:
    """Runs checks against one server, for one device of its.

    ``step`` is how many seconds an answer may take, ``total`` how many all checks may. A check that
    finds no time left fails, and so do all after one that left the server dead.
    """

    def __init__(
        self,
        address: tuple[str, int],
        busid: str = "",
        *,
        step: float = STEP,
        total: float = TOTAL,
    ) -> None:
        self.address = address
        self.busid = busid
        self._step = step
        self._end = time.monotonic() + total
        self._dead = ""

    def run(self, check: Check) -> Outcome:
        """Do one check. Raises nothing of the server's doing."""
        began = time.monotonic()
        if self._dead:
            return Outcome(check, Result.FAIL, "a server that answers", self._dead)
        client = self._client()
        reason = ""
        try:
            self._do(check, client)
            result, expected, seen = Result.PASS, client.expected, client.seen
        except NotApplicable as error:
            result, expected, seen, reason = Result.NOT_APPLICABLE, "", "", str(error)
        except Broken as error:
            result, expected, seen = Result.FAIL, error.expected, error.seen
        finally:
            client.close()
        if result is Result.FAIL:
            self._look(check)
        return Outcome(check, result, expected, seen, reason, time.monotonic() - began)

    def run_all(self, checks: Iterable[Check]) -> Iterable[Outcome]:
        """One after the other."""
        for check in checks:
            yield self.run(check)

    def _client(self) -> Client:
        from pytest_hil.usbip.conformance.client import Client

        clock = Clock(self._step, _STEPS * self._step, self._end)
        return Client(self.address, self.busid, clock)

    def _do(self, check: Check, client: Client) -> None:
        check.body(client)
        if check.serves_on:
            client.close()
            expected, seen = client.expected, client.seen
            client.next_client()
            client.expected = f"{expected}; then the next client is served".removeprefix("; ")
            client.seen = f"{seen}; then served".removeprefix("; ")

    def _look(self, check: Check) -> None:
        """Whether anybody is there still: a dead server need not be waited for again and again."""
        client = self._client()
        try:
            client.alive()
        except Broken as error:
            self._dead = f"not tried, as after {check.id} nobody is served: {error.seen}"
        finally:
            client.close()
