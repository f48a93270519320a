"""What the targets of a test say and do goes into its directory, as it happens."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.plugin import chosen, options, summary
from pytest_hil.plugin.items import attempt_of, worker_id
from pytest_hil.plugin.selection import wanted_of

if TYPE_CHECKING:
    from pytest_hil.artifacts.store import Run, TestDir
    from pytest_hil.target import Target

# The run's directory, in what xdist gives its workers.
RUN = "hil_run"

KEEP_RUNS = 5

_RUN = pytest.StashKey["Run"]()
_TROUBLES = pytest.StashKey[list[str]]()
_DIRECTORY = pytest.StashKey["TestDir"]()


class HilWarning(pytest.PytestWarning):
    """Something about a machine or its artifacts that is no error."""


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-artifacts",
        metavar="DIR",
        type=options.new_directory,
        help="where the targets' logs are kept (default: .hil in the root directory)",
    )
    parser.addini("hil_artifacts_keep", f"how many runs' artifacts are kept (default: {KEEP_RUNS})")


def _runs_to_keep(config: pytest.Config) -> int:
    return options.ini(config, "hil_artifacts_keep", options.count, KEEP_RUNS)


def pytest_configure(config: pytest.Config) -> None:
    # What is wrong is said before the first test, not after the last.
    _runs_to_keep(config)


def root(config: pytest.Config) -> Path:
    named: str | None = config.getoption("hil_artifacts")
    return config.rootpath / ".hil" if named is None else Path(named)


def run_of(config: pytest.Config) -> Run:
    """This run's directory; made now, in the process that owns it."""
    found = config.stash.get(_RUN, None)
    if found is None:
        from pytest_hil.artifacts.store import Run

        troubles = config.stash.setdefault(_TROUBLES, [])
        given: dict[str, str] = getattr(config, "workerinput", {})
        if RUN in given:
            found = Run(Path(given[RUN]), on_trouble=troubles.append)
        else:
            from pytest_hil.plugin.described import run_facts

            found = Run.create(
                root(config),
                argv=config.invocation_params.args,
                targets=chosen.names(config),
                facts=run_facts(config),
                on_trouble=troubles.append,
            )
        config.stash[_RUN] = found
    return found


def made_run(config: pytest.Config) -> Run | None:
    """This run's directory, if anything has needed it."""
    return config.stash.get(_RUN, None)


def made_directory(item: pytest.Item) -> Path | None:
    """Where the attempt at a test that goes on writes, if it has written."""
    found = item.stash.get(_DIRECTORY, None)
    return found.path if found is not None and found.made else None


def directory_of(item: pytest.Item) -> TestDir:
    """The directory of the attempt at a test that goes on."""
    found = item.stash.get(_DIRECTORY, None)
    if found is None:
        wanted = wanted_of(item)
        name = wanted.name if wanted else next(iter(chosen.names(item.config)), "")
        attempt = attempt_of(item)
        found = item.stash[_DIRECTORY] = run_of(item.config).test(
            item.nodeid,
            name,
            worker=worker_id(item.config),
            began=None if attempt is None else attempt.began,
        )
    return found


def place_of(item: pytest.Item, label: str) -> Path:
    """Where a target of a test writes: ``hil`` into the test's directory, others below it."""
    path = directory_of(item).path
    return path / label if label else path


@pytest.hookimpl(tryfirst=True)
def pytest_hil_ready(target: Target, item: pytest.Item, label: str) -> None:
    from pytest_hil.target import Opened

    assert isinstance(target, Opened)  # whoever opened it gave it here
    directory = directory_of(item)
    place = place_of(item, label)
    if label:
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            run_of(item.config).trouble(error)
        events: Callable[..., None] = partial(directory.events, target=label)
        target.record(place, events=events, qmp=partial(_qmp, directory, label))
    else:
        target.record(place, events=directory.events, qmp=directory.qmp)
    directory.events("ready", machine=label or target.name, **_ready(item, target))


def _ready(item: pytest.Item, target: Target) -> dict[str, Any]:
    """How the target of a test came to be, and what it is."""
    from pytest_hil.plugin.described import target_facts
    from pytest_hil.target import Opened

    assert isinstance(target, Opened)
    attempt = attempt_of(item)
    use = next((u for u in attempt.uses if u.target is target), None) if attempt else None
    facts: dict[str, Any] = {"origin": target.origin_text}
    if use is not None:
        facts["description"] = target_facts(item.config, use)
        if use.opened_in is not None:
            facts["seconds"] = round(use.opened_in, 6)
    return facts


def _qmp(directory: TestDir, label: str, line: dict[str, Any]) -> None:
    directory.qmp({"target": label, **line})


# The last of all who have something to do with a report: then nothing more is written.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    if report.when == "teardown" and attempt is not None:
        directory = item.stash.get(_DIRECTORY, None)
        if directory is not None:
            del item.stash[_DIRECTORY]
            directory.finish(attempt.worst, duration=time.monotonic() - attempt.began)
        for text in _new_troubles(item.config):
            warn(item.config, text, item.nodeid)
    return report


def _new_troubles(config: pytest.Config) -> list[str]:
    troubles = config.stash.get(_TROUBLES, [])
    found = troubles.copy()
    troubles.clear()
    return found


def warn(config: pytest.Config, text: str, nodeid: str) -> None:
    """A warning in pytest's summary, whatever the user's filters make of warnings in tests."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.warn(HilWarning(text), stacklevel=2)
    for message in caught:
        config.hook.pytest_warning_recorded.call_historic(
            kwargs={
                "warning_message": message,
                "when": "runtest",
                "nodeid": nodeid,
                "location": None,
            }
        )


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    run = config.stash.get(_RUN, None)
    if run is None or worker_id(config):
        return
    from pytest_hil.artifacts import retention

    if run.used:
        run.finish()
        summary.write(config, run)
        stuck: list[OSError] = []
        retention.prune(root(config), _runs_to_keep(config), on_trouble=stuck.append)
        for error in stuck[:1]:
            warn(config, f"an old run cannot be removed: {error.strerror}: {error.filename}", "")
    else:
        run.discard()
    for text in _new_troubles(config):
        warn(config, text, "")
