"""A run's directory → what its reports say of each test: plain facts, without consoles.

Two things are put together: the tests' directories (meta.json; also of those that were killed), and
the run's results.jsonl (all tests that ended, also those without a target). Either may lack
what the other has, and both may be cut anywhere.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from pytest_hil.artifacts import index
from pytest_hil.artifacts.index import RunRecord, TestRecord

RESULTS: Final = "results.jsonl"
CRASHES: Final = "crash.json"
COVERAGE: Final = "coverage.json"

# In the order of how much they matter to who opens a report.
OUTCOMES: Final = (
    *("failed", "error", "interrupted", "running", "rerun"),
    *("xpassed", "passed", "skipped", "xfailed"),
)
BAD: Final = frozenset({"failed", "error", "interrupted"})

_LONGEST_TEXT: Final = 200_000
_MOST_CRASHES: Final = 50
_LARGEST_FILE: Final = 16 * 2**20


@dataclass(frozen=True, slots=True)
class Crash:
    """One failure of a target's kernel or firmware. ``follow_up``: an earlier one led to it."""

    title: str
    kind: str = ""
    severity: str = ""
    text: str = ""
    follow_up: bool = False


@dataclass(slots=True)
class Test:
    """One try at a test on a target. ``start`` is in seconds since 1970, other times in seconds.

    ``path`` None: it has no directory. ``phases``: how long set-up, call and tear-down took.
    ``reason`` is one line, ``text`` all that pytest said of its failure. ``attempt`` counts the
    tries at this test on this target, from 1.
    """

    nodeid: str
    target: str
    worker: str = ""
    outcome: str = "interrupted"
    start: float = 0.0
    duration: float | None = None
    phases: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    text: str = ""
    markers: tuple[str, ...] = ()
    path: Path | None = None
    crashes: tuple[Crash, ...] = ()
    attempt: int = 1
    meta: dict[str, Any] = field(default_factory=dict)

    __test__ = False

    @property
    def bad(self) -> bool:
        return self.outcome in BAD

    @property
    def end(self) -> float:
        return self.start + (self.duration or 0.0)


@dataclass(slots=True)
class Gathered:
    """A run and its tests, in the order in which they began."""

    run: RunRecord
    tests: list[Test]
    start: float
    end: float

    @property
    def counts(self) -> dict[str, int]:
        """How many tests have which outcome; those that matter first."""
        counted = Counter(test.outcome for test in self.tests)
        return {name: counted[name] for name in OUTCOMES if counted[name]}

    def flaky(self) -> set[tuple[str, str]]:
        """The tests (node id, target) that failed, were tried again, and passed."""
        tries: dict[tuple[str, str], set[str]] = {}
        for test in self.tests:
            tries.setdefault((test.nodeid, test.target), set()).add(test.outcome)
        return {
            test
            for test, outcomes in tries.items()
            if "passed" in outcomes and outcomes & (BAD | {"rerun"})
        }


def gather(run: RunRecord) -> Gathered:
    """All that a run's tests have left, whatever state it is in. Raises nothing for bad files."""
    lines: dict[str, dict[str, Any]] = {}
    loose: list[dict[str, Any]] = []
    for line in bounded_lines(run.path / RESULTS):
        name = _text(line.get("directory"))
        if name:
            lines[name] = line
        else:
            loose.append(line)
    tests = []
    unended: dict[str, Test] = {}
    for record in run.tests():
        found = lines.pop(record.path.name, {})
        test = _with_result(_of_directory(record), found)
        tests.append(test)
        if not found and test.outcome == "interrupted":
            unended[test.nodeid] = test
    for line in (*lines.values(), *loose):
        # A worker that died could not say which directory it was writing.
        known = unended.pop(_text(line.get("nodeid")), None)
        if known is not None:
            _with_result(known, line)
        elif _text(line.get("nodeid")):
            tests.append(_with_result(_of_line(line), line))
    tests.sort(key=lambda test: (test.start, test.nodeid, test.target))
    _count_attempts(tests)
    return Gathered(run, tests, *_span(run, tests))


def _of_directory(record: TestRecord) -> Test:
    outcome = record.outcome or record.status
    test = Test(
        nodeid=record.nodeid,
        target=record.target,
        worker=record.worker,
        outcome=outcome if outcome in OUTCOMES else "interrupted",
        start=moment(record.start),
        duration=_seconds(record.duration),
        path=record.path,
        meta=record.meta,
    )
    test.crashes = tuple(_crashes(record.path))
    if test.crashes and test.bad:
        test.reason = test.crashes[0].title
    return test


def _of_line(line: dict[str, Any]) -> Test:
    return Test(nodeid=_text(line.get("nodeid")), target=_text(line.get("target")))


def _with_result(test: Test, line: dict[str, Any]) -> Test:
    """What the run's results say goes before what the directory says of itself."""
    outcome = _text(line.get("outcome"))
    if outcome in OUTCOMES:
        test.outcome = outcome
    # Without a time of its own (its worker died) the directory knows better.
    if start := _seconds(line.get("start")):
        test.start = start
        test.duration = _seconds(line.get("duration"))
    phases = line.get("phases")
    if isinstance(phases, dict):
        found = {str(name): _seconds(value) for name, value in phases.items()}
        test.phases = {name: value for name, value in found.items() if value is not None}
    test.worker = _text(line.get("worker")) or test.worker
    test.reason = _text(line.get("reason"))[:1000] or test.reason
    test.text = _text(line.get("text"))[:_LONGEST_TEXT] or test.text
    markers = line.get("markers")
    test.markers = tuple(map(str, markers)) if isinstance(markers, list) else ()
    return test


def _count_attempts(tests: Iterable[Test]) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    for test in tests:
        counted[test.nodeid, test.target] += 1
        test.attempt = counted[test.nodeid, test.target]


def _span(run: RunRecord, tests: Sequence[Test]) -> tuple[float, float]:
    starts = [t.start for t in tests if t.start]
    start = moment(run.start) or min(starts, default=0.0)
    start = min([start, *starts])
    return start, max([start, moment(run.end), *(test.end for test in tests)])


def _crashes(path: Path) -> Iterator[Crash]:
    """Those of the test's target, and then those of the further ones that it opened."""
    yield from crashes(path)
    for other in sorted(path.glob(f"*/{CRASHES}")):
        yield from crashes(other.parent)


def crashes(path: Path) -> Iterator[Crash]:
    """The crashes that a directory's crash.json lists; none if there is none, or it is cut."""
    content = read_json(path / CRASHES)
    for entry in (content if isinstance(content, list) else [])[:_MOST_CRASHES]:
        if isinstance(entry, dict) and entry.get("title"):
            yield Crash(
                title=_text(entry["title"])[:500],
                kind=_text(entry.get("kind")),
                severity=_text(entry.get("severity")),
                text=_text(entry.get("text"))[:_LONGEST_TEXT],
                follow_up=bool(entry.get("follow_up")),
            )


def coverage(run: RunRecord) -> dict[str, tuple[int, int]]:
    """Covered lines and all lines of each file, if the run measured that."""
    content = read_json(run.path / COVERAGE)
    files = content.get("files") if isinstance(content, dict) else None
    found = {}
    for name, facts in files.items() if isinstance(files, dict) else ():
        lines = facts.get("lines") if isinstance(facts, dict) else None
        if isinstance(lines, list) and len(lines) == 2 and all(isinstance(n, int) for n in lines):
            found[str(name)] = (lines[0], lines[1])
    return found


def read_json(path: Path) -> Any:
    """What is in a JSON file; None if there is none, or it is cut, or too large to be ours."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def bounded_lines(
    path: Path, *, longest: int = 2**20, stop: Callable[[int], bool] = lambda _read: False
) -> Iterator[dict[str, Any]]:
    """The objects of a JSON-lines file, without lines that are cut or longer than any of ours.

    ``stop`` is asked with the number of bytes read so far before each line.
    """
    try:
        with path.open("rb") as file:
            while not stop(file.tell()) and (line := file.readline(longest)):
                if not line.endswith(b"\n") and len(line) == longest:
                    while (rest := file.readline(longest)) and not rest.endswith(b"\n"):
                        pass
                    continue
                if (content := parse(line)) is not None:
                    yield content
    except OSError:
        return


def parse(line: bytes) -> dict[str, Any] | None:
    """The object in a line; None if there is none."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def run_called(root: Path, wanted: str) -> RunRecord:
    """A run by its id, the beginning of one, ``latest``, or the path of its directory."""
    path = Path(wanted)
    if "/" in wanted and (path / "run.json").is_file():
        return index.find_run(path.absolute().parents[1], path.absolute().name)
    return index.find_run(root, wanted)


def moment(text: str) -> float:
    """ISO 8601 → seconds since 1970; 0 for what is none."""
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0


def _seconds(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
