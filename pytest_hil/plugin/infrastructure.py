"""What broke on our side is an *error* of the test, never a failure of it.

Pytest knows errors of set-up and tear-down only, so that one of the call is marked, and shown to
whoever counts reports (terminal, JUnit, …) as what it is.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from typing import Any, Literal

import pytest

from pytest_hil.errors import (
    ConsoleClosed,
    Crashed,
    HilError,
    InfrastructureError,
)
from pytest_hil.plugin import crashes
from pytest_hil.plugin.items import Attempt, Use, attempt_of, worker_id

# An attribute of a report: the phase that broke; plain, so that it survives the way from a worker.
FLAG = "hil_infrastructure"
# Another: nothing but what a crash that the test has failed with has left.
AFTERMATH = "hil_aftermath"
PREFIX = "infrastructure: "
_OURS = __name__.partition(".")[0]
_HERE = Path(__file__).parents[1]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    attempt = attempt_of(item)
    _complete(item, call, attempt)
    error = call.excinfo.value if call.excinfo is not None else None
    of_test = False
    if isinstance(error, HilError):
        if item.config.getoption("fulltrace", default=False):
            of_test = True
        else:
            of_test = _leave_out_our_own(error)
        error = _real_reason(error, attempt)
    crash = earlier = None
    if attempt is not None:
        crash = crashes.crashed(item, attempt, error, phase=call.when)
        if crash is None:
            crash = earlier = crashes.aftermath(attempt, error)
        if crash is not None and (call.excinfo is None or isinstance(error, pytest.skip.Exception)):
            call.excinfo = _raised(crash)
            of_test = False
        elif crash is not None:
            of_test = of_test or not isinstance(error, HilError)
    if isinstance(crash, InfrastructureError):
        error, crash = crash, None
    report = yield
    if crash is not None and not (report.skipped and hasattr(report, "wasxfail")):
        _make_failed(item, report, crashes.PREFIX + str(crash), call, of_test=of_test)
        if earlier is not None:
            setattr(report, AFTERMATH, True)
    elif isinstance(error, InfrastructureError) and not _expected(report, item):
        for use in _broken(attempt, error):
            use.target.broke(error)
        _make_failed(item, report, PREFIX + str(error), call, of_test=of_test)
        setattr(report, FLAG, report.when)
        if attempt is not None and attempt.in_call:
            attempt.broke = error
    elif isinstance(error, HilError) and report.failed and not of_test:
        # It came from a fixture of ours: what it says is all that helps.
        report.longrepr = _in_words(item, call, str(error))
    if attempt is not None:
        attempt.worsen(_outcome(report))
        attempt.failed |= attempt.in_call and _outcome(report) == "failed"
    return report


def _complete(item: pytest.Item, call: pytest.CallInfo[None], attempt: Attempt | None) -> None:
    """What ended this phase, where pytest says it only later or in a group with others."""
    if call.excinfo is None and call.when == "call":
        # Of a unittest.TestCase: pytest takes what its test raised from here itself, after us.
        if theirs := getattr(item, "_excinfo", None):
            call.excinfo = theirs[0]
        # A test in which subtests failed fails for pytest; if they broke on our side, it did.
        elif attempt and attempt.broke and not attempt.in_call and not attempt.failed:
            call.excinfo = _raised(attempt.broke)
    if call.excinfo is not None and (one := _one_of_ours(call.excinfo.value)) is not None:
        # One that was put into a group and never raised happened where the group did.
        one.__traceback__ = one.__traceback__ or call.excinfo.tb
        call.excinfo = pytest.ExceptionInfo.from_exception(one)


def _one_of_ours(error: BaseException) -> BaseException | None:
    """Of a group of errors, as tasks, threads and tear-downs make them, the first that says why, if
    there is nothing else in it: a crash, or what broke on our side.
    """
    if not isinstance(error, BaseExceptionGroup) or error.split((Crashed, InfrastructureError))[1]:
        return None
    for kind in (Crashed, InfrastructureError):
        found: BaseException | None = error.subgroup(kind)
        while isinstance(found, BaseExceptionGroup):
            found = found.exceptions[0]
        if found is not None:
            return found
    return None


def _real_reason(error: HilError, attempt: Attempt | None) -> HilError:
    """A console that ended because its machine died is no failure of the test."""
    if isinstance(error, ConsoleClosed) and attempt is not None:
        for use in attempt.uses:
            if (died := use.target.died()) is not None:
                return died
    return error


def _leave_out_our_own(error: BaseException) -> bool:
    """The test's own lines are what helps: not how a call went on within this package.

    Returns whether there are any of its own.
    """
    entries = []
    entry = error.__traceback__
    while entry is not None:
        entries.append(entry)
        entry = entry.tb_next
    packages = [str(e.tb_frame.f_globals.get("__name__", "")).partition(".")[0] for e in entries]
    # Pytest and the hooks around the test come first.
    first = max((n for n, name in enumerate(packages) if name in ("_pytest", "pluggy")), default=-1)
    ours = next((n for n in range(first + 1, len(entries)) if packages[n] == _OURS), None)
    error.__cause__ = None
    error.__suppress_context__ = True
    if ours is not None and ours > first + 1:
        entries[ours - 1].tb_next = None
    return ours != first + 1


def _broken(attempt: Attempt | None, error: InfrastructureError) -> list[Use]:
    """The targets of a test at which it broke: what a test was doing says nothing of them all."""
    uses = [] if attempt is None else attempt.uses
    if error.board:
        return [use for use in uses if use.target.name == error.board]
    # A console says whose it is.
    names = set(re.findall(r"\b(?:board|of) ([\w.+~-]+)", error.message))
    return [use for use in uses if use.target.name in names]


def _expected(report: pytest.TestReport, item: pytest.Item) -> bool:
    """Whether the test said ``xfail(raises=…)`` with this kind of error."""
    marks = item.iter_markers("xfail")
    return hasattr(report, "wasxfail") and any("raises" in mark.kwargs for mark in marks)


def _raised(error: Exception) -> pytest.ExceptionInfo[BaseException]:
    """What pytest knows of an exception that somebody raised."""
    try:
        raise error
    except BaseException:
        return pytest.ExceptionInfo.from_current()


def _make_failed(
    item: pytest.Item,
    report: pytest.TestReport,
    message: str,
    call: pytest.CallInfo[None],
    *,
    of_test: bool,
) -> None:
    """Failed, for a reason that is not the test's own: said first, then where the test was."""
    report.outcome = "failed"
    if hasattr(report, "wasxfail"):
        del report.wasxfail
    said = _in_words(item, call, message)
    theirs: Any = report.longrepr
    if of_test and hasattr(theirs, "chain"):
        # First what happened, then where in the test; not what happened once more.
        for entry in theirs.reprtraceback.reprentries:
            entry.lines[:] = [line for line in entry.lines if not line.startswith("E ")]
        theirs.reprcrash = said.reprcrash
        theirs.chain = [
            (said.reprtraceback, said.reprcrash, "The test was here:"),
            (theirs.reprtraceback, said.reprcrash, None),
        ]
    else:
        report.longrepr = said


def _in_words(item: pytest.Item, call: pytest.CallInfo[None], message: str) -> Any:
    """What stands in a report for an exception of which only the message matters."""
    assert call.excinfo is not None
    said: Any = call.excinfo.getrepr(style="value", chain=False)
    said.reprcrash.message = message
    if Path(said.reprcrash.path).is_relative_to(_HERE):
        # Editors and --tb=line go there.
        said.reprcrash.path, said.reprcrash.lineno = str(item.path), (item.location[1] or 0) + 1
    said.reprtraceback.reprentries[0].lines[:] = message.splitlines()
    return said


def breaks(report: pytest.TestReport) -> bool:
    """Whether a phase that failed makes the whole test an error."""
    if report.when in ("setup", "teardown"):
        return not hasattr(report, AFTERMATH)
    return hasattr(report, FLAG)


def _outcome(report: pytest.TestReport) -> str:
    if report.failed:
        return "error" if breaks(report) else "failed"
    return "skipped" if report.skipped else "passed"


def pytest_report_teststatus(
    report: pytest.CollectReport | pytest.TestReport,
) -> tuple[str, str, str] | None:
    return ("error", "E", "ERROR") if _is_error(report) else None


def _is_error(report: pytest.CollectReport | pytest.TestReport) -> bool:
    """Whether it broke on our side, and counts: one that a plugin tries again is that plugin's."""
    return report.failed and hasattr(report, FLAG)


class _AsErrors:
    """While reports are counted, an error of the call is one of the set-up."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(
        self, report: pytest.TestReport
    ) -> Generator[None, object, object]:
        if not _is_error(report) or report.when != "call":
            return (yield)
        call: Literal["call"] = report.when
        report.when = "setup"
        try:
            return (yield)
        finally:
            report.when = call


def pytest_configure(config: pytest.Config) -> None:
    # A worker's reports are counted by the controller.
    if not worker_id(config):
        config.pluginmanager.register(_AsErrors())
