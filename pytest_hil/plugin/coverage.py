"""``--hil-cov``: what code the tests ran on their targets.

Each test's coverage is written beside its other artifacts, by the process that ran it; the end of
the run merges what is there. Nothing of it is held in memory; only that something could not be
written is sent by xdist.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.plugin import chosen, options
from pytest_hil.plugin.artifacts import made_run, place_of, run_of
from pytest_hil.plugin.items import attempt_of, worker_id

if TYPE_CHECKING:
    from pytest_hil.artifacts.store import Run
    from pytest_hil.coverage.collect import Collector
    from pytest_hil.coverage.paths import Sources
    from pytest_hil.coverage.shard import Shard
    from pytest_hil.target import Target

DIRECTORY = "coverage"
# In the run's directory: covered lines and all lines of each file, for its report.
SUMMARY = "coverage.json"
_KINDS = ("term", "html", "lcov", "cobertura", "json")
_PROBLEMS_SHOWN = 10
# An attribute of a report: why coverage of its test is not on the disk. Plain values.
LOST = "hil_coverage_lost"

_COLLECTORS = pytest.StashKey[dict[str, "Collector"]]()
_LOST = pytest.StashKey[list[str]]()
_RESULT = pytest.StashKey["Result"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = options.group(parser)
    group.addoption(
        "--hil-cov",
        metavar="SOURCE",
        nargs="?",
        action="append",
        const="",
        type=_source,
        help="measure what code runs on the targets: of programs, kernels and firmware that were "
        "compiled with --coverage, and of Python under coverage.py. SOURCE: the directory or file "
        "that counts (default: the root directory); several times: several",
    )
    group.addoption(
        "--hil-cov-report",
        metavar="KIND[:PATH]",
        action="append",
        type=_report,
        help=f"{', '.join(_KINDS)}, and where to (default: term; files beside the artifacts)",
    )
    group.addoption(
        "--hil-cov-fail-under",
        metavar="PERCENT",
        type=_percent,
        help="fail if fewer of the lines ran, or if some coverage was lost",
    )
    group.addoption(
        "--hil-cov-gcov",
        metavar="PROGRAM",
        help="the compiler's own gcov, such as arm-none-eabi-gcov (default: the one that fits)",
    )
    parser.addini(
        "hil_cov_map",
        "BUILT=HERE, one a line: where a build's directory is on this host",
        type="linelist",
    )
    parser.addini(
        "hil_cov_omit", "patterns of source files that do not count, one a line", type="linelist"
    )


def _source(text: str) -> str:
    if not Path(text).expanduser().exists():
        raise argparse.ArgumentTypeError(
            f"{text}: there is no such file or directory (tests come before --hil-cov, or after --)"
        )
    return text


def _report(text: str) -> tuple[str, str]:
    kind, _, path = text.partition(":")
    try:
        return options.one_of(*_KINDS)(kind), path
    except argparse.ArgumentTypeError as wrong:
        from pytest_hil.errors import nearest

        raise argparse.ArgumentTypeError(f"{wrong}: {nearest(kind, _KINDS)}") from None


def _percent(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 100:
        raise argparse.ArgumentTypeError(f"{text!r} is no percentage from 0 to 100")
    return number


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("hil_cov"):
        sources(config)
        config.pluginmanager.register(_Lost(config))
        return
    for name in ("report", "fail_under", "gcov"):
        if config.getoption(f"hil_cov_{name}") is not None:
            option = f"--hil-cov-{name.replace('_', '-')}"
            raise pytest.UsageError(f"{option}: of what? add --hil-cov, or --hil-cov=SOURCE")


def sources(config: pytest.Config) -> Sources:
    """What counts. Raises UsageError when the ini file says what cannot be."""
    from pytest_hil.coverage.paths import Sources, parse_mapping

    beside = config.inipath.parent if config.inipath else config.rootpath
    try:
        mapping = parse_mapping(config.getini("hil_cov_map"), beside)
    except ValueError as wrong:
        raise pytest.UsageError(f"{config.inipath}: hil_cov_map: {wrong}") from None
    given: list[str] = config.getoption("hil_cov")
    start = config.invocation_params.dir
    roots = [start / Path(text).expanduser() if text else config.rootpath for text in given]
    return Sources(
        roots=tuple(path.resolve() for path in roots),
        omit=tuple(config.getini("hil_cov_omit")),
        mapping=mapping,
        builds=(config.rootpath,),
    )


# --- a test ---


def pytest_hil_ready(target: Target, item: pytest.Item, label: str) -> None:
    config = item.config
    if not config.getoption("hil_cov"):
        return
    from pytest_hil.coverage.collect import Collector
    from pytest_hil.target import Opened

    assert isinstance(target, Opened)  # whoever opened it gave it here
    if target.is_twin:
        return  # its counters began as copies of those of the first
    collector = target.follower
    if not isinstance(collector, Collector):
        gcov = config.getoption("hil_cov_gcov") or ""
        collector = Collector(target, sources(config), gcov=gcov)
    item.stash.setdefault(_COLLECTORS, {})[label] = collector
    collector.begin(place_of(item, label) / DIRECTORY)


# The last of all who have something to do in a teardown: then its fixtures have ended too.
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    with ExitStack() as after:
        # Also when the teardown fails.
        after.callback(_end, item)
        return (yield)


def _end(item: pytest.Item) -> None:
    """Count what a test's targets have left. What is of another build is the test's error."""
    from pytest_hil.errors import ForeignCoverage

    foreign: list[ForeignCoverage] = []
    for collector in item.stash.get(_COLLECTORS, {}).values():
        try:
            found = collector.end(item.nodeid)
        except OSError as error:
            run_of(item.config).trouble(error)
            said = f"what was counted could not be written: {error.strerror or error}"
            item.stash.setdefault(_LOST, []).append(said)
            continue
        foreign += [each for each in found.problems if isinstance(each, ForeignCoverage)]
    item.stash[_COLLECTORS] = {}
    if foreign and attempt_of(item) is not None:
        raise foreign[0]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "teardown" and _LOST in item.stash:
        setattr(report, LOST, item.stash[_LOST])
        del item.stash[_LOST]
    return report


# --- the end of the run ---


@dataclass(slots=True)
class Result:
    """What the summary says. ``problems``: text → the tests that had it."""

    table: list[str] = field(default_factory=list)
    written: list[str] = field(default_factory=list)
    unwritten: list[str] = field(default_factory=list)
    problems: dict[str, list[str]] = field(default_factory=dict)
    notes: int = 0
    percent: float = 0.0
    counted: bool = False
    failed: str = ""

    def problem(self, text: str, test: str = "") -> None:
        """Something was not counted."""
        self.problems.setdefault(text, []).append(test)


def _result(config: pytest.Config) -> Result:
    return config.stash.setdefault(_RESULT, Result())


class _Lost:
    """Hears of what is not on the disk, also from workers."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for text in getattr(report, LOST, ()):
            _result(self._config).problem(text, report.nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if not config.getoption("hil_cov") or worker_id(config) or config.option.collectonly:
        return
    from pytest_hil.errors import HilError

    result = _result(config)
    run = made_run(config)
    if run is not None:
        try:
            _report_on(config, run, result)
        except (HilError, OSError) as error:
            result.problem(f"no report: {error}")
    least: float | None = config.getoption("hil_cov_fail_under")
    if least is not None:
        if result.problems:
            result.failed = "some coverage was lost, so that its share is not known"
        elif not result.counted:
            result.failed = "no coverage came"
        elif result.percent < least:
            # Rounded down: 79.999 is not 80.
            percent = math.floor(result.percent * 100) / 100
            result.failed = f"{percent:.2f} % of the lines ran, wanted {least:g} %"
    if (result.failed or result.unwritten) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _report_on(config: pytest.Config, run: Run, result: Result) -> None:
    from pytest_hil.coverage import shard
    from pytest_hil.coverage.collect import SHARD
    from pytest_hil.coverage.model import Totals, totals_of
    from pytest_hil.coverage.report.names import short
    from pytest_hil.errors import CoverageError

    broken: list[CoverageError] = []
    paths = list(_of_tests(run.path, SHARD))
    _gather_problems(run.path, result)
    if not paths:
        return
    own = run.path / DIRECTORY
    own.mkdir(exist_ok=True)
    whole = shard.merge(paths, own / SHARD, broken=broken)
    for error in broken:
        result.problem(str(error))
    totals = Totals()
    files = {}
    for file in whole:
        totals.add(file)
        its = totals_of(file)
        files[short(file.path, config.rootpath)] = {
            "lines": [its.lines_hit, its.lines],
            "branches": [its.branches_hit, its.branches],
            "functions": [its.functions_hit, its.functions],
        }
    result.percent, result.counted = totals.percent, totals.lines > 0
    summary = json.dumps({"percent": round(totals.percent, 2), "files": files})
    try:
        (run.path / SUMMARY).write_text(summary)
    except OSError as error:
        run.trouble(error)
    wanted: list[tuple[str, str]] = config.getoption("hil_cov_report") or [("term", "")]
    for kind, path in wanted:
        try:
            _write(config, kind, path, whole, own, result)
        except OSError as error:
            result.unwritten.append(
                f"{kind}{f':{path}' if path else ''} cannot be written: {error.strerror or error}"
                f"{f': {error.filename}' if error.filename else ''}"
            )


def _write(
    config: pytest.Config, kind: str, given: str, whole: Shard, own: Path, result: Result
) -> None:
    """One report."""
    from pytest_hil.coverage.report import cobertura, html, lcov, term
    from pytest_hil.coverage.report import json as as_json

    base = config.rootpath
    if kind == "term":
        result.table = list(term.table(whole, base=base))
        return
    name = {"html": "", "lcov": "lcov.info", "cobertura": "cobertura.xml", "json": "report.json"}
    to = config.invocation_params.dir / Path(given).expanduser() if given else own / name[kind]
    to.parent.mkdir(parents=True, exist_ok=True)
    if kind == "html":
        to = html.write(whole, to, base=base)
    elif kind == "lcov":
        lcov.write(whole, to)
    elif kind == "cobertura":
        cobertura.write(whole, to, base=base)
    else:
        as_json.write(whole, to, base=base)
    result.written.append(f"{kind}: {to}")


def _of_tests(run: Path, name: str) -> Iterator[Path]:
    """The file of each target of each test."""
    for pattern in (f"*@*/{DIRECTORY}/{name}", f"*@*/*/{DIRECTORY}/{name}"):
        yield from sorted(run.glob(pattern))


def _gather_problems(run: Path, result: Result) -> None:
    from pytest_hil.coverage.collect import PROBLEMS

    for path in _of_tests(run, PROBLEMS):
        try:
            *lines, rest = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except OSError as error:
            result.problem(f"{path} cannot be read: {error.strerror}")
            continue
        if rest or not lines:
            result.problem(f"{path} was cut off: it is not known what else was lost")
        for line in lines:
            found: dict[str, Any] = json.loads(line)
            if found["kind"] == "note":
                result.notes += 1
            else:
                result.problem(found["text"], found["test"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    config = terminalreporter.config
    result = config.stash.get(_RESULT, None)
    if result is None:
        return
    from pytest_hil.errors import visible

    say = terminalreporter.write_line
    terminalreporter.write_sep("=", "coverage on the targets")
    for line in result.table:
        say(line)
    for line in result.written:
        say(line)
    for line in result.unwritten:
        say(visible(line), red=True)
    for number, (text, tests) in enumerate(result.problems.items()):
        if number == _PROBLEMS_SHOWN:
            say(f"… and {len(result.problems) - number} more problems: see {DIRECTORY}/ of tests")
            break
        more = f", and {len(tests) - 1} more" if len(tests) > 1 else ""
        where = f" ({tests[0]}{more})" if tests[0] else ""
        say(f"not counted: {visible(text)}{where}", red=True)
    if result.notes:
        say(f"{result.notes} times a target did not answer any more; what it had told was counted")
    if not result.counted and not result.problems:
        say(_why_nothing(config), yellow=True)
    if result.failed:
        say(f"FAIL: {result.failed}", red=True, bold=True)


def _why_nothing(config: pytest.Config) -> str:
    if not chosen.names(config):
        return "nothing was counted: no test had a target (--hil-target=NAME)"
    return (
        "nothing was counted: no program that was compiled with --coverage ended by itself in "
        "hil.run(), or none of its source is below "
        + ", ".join(str(root) for root in sources(config).roots)
    )
