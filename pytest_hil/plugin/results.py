"""How each test ended goes into the run's results.jsonl, when it ends, by the one who counts.

The tests' own directories say it too; but not of tests without a target, nor of those that were
skipped, nor what pytest said of a failure.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

import pytest

from pytest_hil.plugin import chosen, summary
from pytest_hil.plugin.artifacts import made_directory, made_run
from pytest_hil.plugin.infrastructure import FLAG, breaks
from pytest_hil.plugin.items import worker_id
from pytest_hil.plugin.selection import wanted_of

# An attribute of a report: what a worker knows and the controller does not. Plain values.
FACTS = "hil_facts"
LONGEST_TEXT = 100_000

# Marks that say nothing about a test that somebody would look for.
_TECHNICAL = frozenset({"parametrize", "usefixtures", "filterwarnings", "hil"})


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if chosen.names(item.config):
        wanted = wanted_of(item)
        directory = made_directory(item)
        facts = {
            "target": wanted.name if wanted is not None else "",
            "directory": directory.name if directory is not None else "",
            "markers": sorted({mark.name for mark in item.iter_markers()} - _TECHNICAL),
        }
        setattr(report, FACTS, facts)
    return report


@dataclass(slots=True)
class _Going:
    """A test of which not all phases are over."""

    outcome: str = "passed"
    start: float = 0.0
    stop: float = 0.0
    phases: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    text: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


_SEVERITY = ("passed", "skipped", "xfailed", "xpassed", "rerun", "failed", "error")


class _Writer:
    """Puts the phases of tests together; of those that run at the same time too."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._going: dict[tuple[str, str], _Going] = {}
        # What ended before any test had a target; if none ever has, there is no run to write to.
        self._waiting: list[dict[str, Any]] = []
        self._told = False

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        worker = str(getattr(report, "worker_id", ""))
        key = (report.nodeid, worker)
        # Counted as one of the set-up, an error of the call is one of the call still.
        when = str(getattr(report, FLAG, report.when))
        if when == "setup":
            self._tried_again(key)
            self._going.pop(key, None)
        going = self._going.setdefault(key, _Going())
        outcome = _outcome(report)
        if _SEVERITY.index(outcome) > _SEVERITY.index(going.outcome):
            going.outcome = outcome
        going.start = going.start or report.start
        going.stop = report.stop
        # "???": xdist's, of a test whose worker died in it. It knows no times either.
        if when in ("setup", "call", "teardown"):
            going.phases[when] = round(report.duration, 6)
        _explain(going, report)
        # Out of the report: pytest keeps each until the end of the run.
        going.facts.update(report.__dict__.pop(FACTS, {}))
        if when not in ("setup", "call"):
            self._over(key)

    def pytest_sessionfinish(self) -> None:
        for key in list(self._going):
            self._tried_again(key)

    def _tried_again(self, key: tuple[str, str]) -> None:
        """A test begins anew, or the run ends: not everybody who runs tests again tells of the
        tear-down between.
        """
        if key in self._going and self._going[key].outcome == "rerun":
            self._over(key)

    def _over(self, key: tuple[str, str]) -> None:
        nodeid, worker = key
        going = self._going.pop(key)
        self._write(
            worker,
            {
                "nodeid": nodeid,
                "outcome": going.outcome,
                "worker": worker,
                "start": going.start if going.phases else 0.0,
                "duration": round(going.stop - going.start, 6) if going.phases else None,
                "phases": going.phases,
                **going.facts,
                "reason": going.reason,
                "text": going.text,
            },
        )

    def _write(self, worker: str, line: dict[str, Any]) -> None:
        self._waiting.append(line)
        run = made_run(self._config)
        if run is not None:
            if not self._told:
                self._told = True
                run.update(collected=collected(self._config))
                if worker:
                    summary.prepare()  # while the workers go on
            for each in self._waiting:
                run.result(**each)
            self._waiting.clear()


def collected(config: pytest.Config) -> int:
    """How many tests there are to run, of all workers; 0 where nobody knows."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    return int(getattr(getattr(reporter, "_session", None), "testscollected", 0))


def tried_again(report: pytest.TestReport) -> bool:
    """Whether a plugin runs the test once more: then it calls what came to nothing by a word of
    its own.
    """
    return report.outcome not in ("passed", "failed", "skipped")


def _outcome(report: pytest.TestReport) -> str:
    if tried_again(report):
        return "rerun"
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    if report.failed:
        return "error" if breaks(report) else "failed"
    return "skipped" if report.skipped else "passed"


def _explain(going: _Going, report: pytest.TestReport) -> None:
    if hasattr(report, "wasxfail"):
        going.reason = going.reason or str(report.wasxfail)
        return
    longrepr: Any = report.longrepr
    if report.skipped and isinstance(longrepr, tuple) and len(longrepr) == 3:
        going.reason = str(longrepr[2]).removeprefix("Skipped: ")
    elif _outcome(report) in ("failed", "error", "rerun"):
        crash = getattr(longrepr, "reprcrash", None)
        said = str(getattr(crash, "message", None) or longrepr or "")
        text = str(report.longreprtext)[:LONGEST_TEXT]
        # A tear-down may fail after the call: the first is the reason, both are told.
        going.reason = going.reason or next(iter(said.strip().splitlines()), "")[:1000]
        going.text = f"{going.text}\n\n{text}"[:LONGEST_TEXT] if going.text else text


def pytest_configure(config: pytest.Config) -> None:
    if not worker_id(config) and chosen.names(config):
        config.pluginmanager.register(_Writer(config))
