"""report.html: one file with all in it, for a browser without a network.

The file is a skeleton, a style, the tests' rows as JSON, and a script that shows them; after that
come the tests' details, each packed by itself, which the browser reads while the page can be used
already. Text of tests and targets is in JSON only, and the script puts it into the page as text:
nothing that a console says can become markup. What may run and be loaded is fixed by hashes in a
Content-Security-Policy that allows no network.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import IO, Any, Final
from urllib.parse import quote

from pytest_hil.artifacts.disk import replacing
from pytest_hil.artifacts.report.detail import Details, first_ready
from pytest_hil.artifacts.report.gather import Gathered, Test, coverage
from pytest_hil.artifacts.report.rerun import command

NAME: Final = "report.html"
# Bytes of consoles, unpacked; a tenth to a fifth of that comes into the file.
ROOM: Final = 32 * 2**20
_MOST_STATIC: Final = 200
_MOST_COVERED: Final = 5_000
_SCRIPTS: Final = (
    *("model.js", "element.js", "state.js", "list.js", "console.js", "detail.js"),
    *("timeline.js", "plots.js", "sections.js", "app.js"),
)


def write(gathered: Gathered, output: Path, *, room: int = ROOM) -> None:
    """Write the page, whole or not at all. Raises OSError that names ``output``."""
    with replacing(output) as file:
        _write(gathered, file, output.absolute().parent, room)


def _write(gathered: Gathered, file: IO[bytes], beside: Path, room: int) -> None:
    # What is read of the tests' files goes to the disk at once: pages of many tests are large.
    with tempfile.TemporaryFile() as later:
        details = Details(room)
        rows, seen = [], []
        for number, test in enumerate(gathered.tests):
            found = details.of(test)
            for piece in packed(f"d{number}", found):
                later.write(piece)
            rows.append(_row(test, found, gathered.start))
            seen.append(found.get("crashes", []))
        model = _model(gathered, rows, seen, beside)
        for part in _skeleton(gathered, model):
            file.write(part)
        later.seek(0)
        while data := later.read(2**20):
            file.write(data)
    file.write(b"</body>\n</html>\n")


def _skeleton(gathered: Gathered, model: dict[str, Any]) -> Iterator[bytes]:
    style, script = source("page.css"), _script()
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )
    page = source("page.html")
    filled = {
        "policy": html.escape(policy),
        "title": html.escape(f"{gathered.run.id}: {_counts(gathered)}"),
        "static": "".join(_static(gathered)),
        "style": style,
        "model": embedded(model),
        "script": script,
    }
    for number, part in enumerate(page.split("@@")):
        # Half a pair of surrogates, which a test's name can have, is no text that could be written.
        yield (filled[part] if number % 2 else part).encode(errors="replace")


def _model(
    gathered: Gathered, rows: list[list[Any]], crashes: list[list[dict[str, Any]]], beside: Path
) -> dict[str, Any]:
    run = gathered.run
    facts = run.facts
    options = [str(one) for one in facts.get("options") or () if isinstance(one, str)]
    covered = sorted(coverage(run).items(), key=lambda one: one[1][0] - one[1][1])
    machines: dict[str, int] = {}
    origins = []
    for test in gathered.tests:
        ready = first_ready(test.path)
        described = ready.get("description")
        described = described if isinstance(described, dict) else {}
        key = json.dumps([test.target, described], default=str)
        seconds = ready.get("seconds")
        origins.append(
            [
                machines.setdefault(key, len(machines)) if ready else -1,
                str(ready.get("origin", "")),
                seconds if isinstance(seconds, int | float) else None,
            ]
        )
    flaky = gathered.flaky()
    return {
        "run": {
            "id": run.id,
            "status": run.status,
            "argv": run.argv,
            "targets": run.targets,
            "root": str(facts.get("root", "")),
            "facts": facts.get("versions") if isinstance(facts.get("versions"), dict) else {},
            "options": options,
        },
        "made": datetime.now(UTC).timestamp(),
        "start": gathered.start,
        "end": gathered.end,
        "counts": gathered.counts,
        "tests": rows,
        "origins": origins,
        "machines": [json.loads(key) for key in machines],
        "commands": [command(t.nodeid, t.target, options) for t in gathered.tests],
        "flaky": [n for n, t in enumerate(gathered.tests) if (t.nodeid, t.target) in flaky],
        "crashes": _crash_groups(crashes),
        "coverage": [[name, *lines] for name, lines in covered[:_MOST_COVERED]],
        "coverage_total": [sum(n[0] for _, n in covered), sum(n[1] for _, n in covered)],
        "files": _files_of(run.path),
        "base": _relative(run.path, beside),
    }


def _row(test: Test, found: dict[str, Any], start: float) -> list[Any]:
    """A test in the list: what filters, sorting, and the time line need."""
    phases = [round(test.phases.get(name, 0.0), 4) for name in ("setup", "call", "teardown")]
    return [
        test.nodeid,
        test.target,
        test.worker,
        test.outcome,
        round(test.start - start, 4) if test.start else None,
        None if test.duration is None else round(test.duration, 4),
        phases if any(phases) else 0,
        test.reason,
        list(test.markers),
        test.path.name if test.path is not None else "",
        test.attempt,
        len(test.crashes),
        1 if found else 0,
    ]


def _crash_groups(crashes: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """By title, those that most tests have first; each with where it was seen first.

    ``crashes``: of each test, in the order in which they began.
    """
    groups: dict[str, dict[str, Any]] = {}
    for number, of_test in enumerate(crashes):
        for crash in of_test:
            facts = {key: crash[key] for key in ("title", "kind", "severity", "t")}
            text = crash["text"][:20_000]
            new = {**facts, "text": text, "first": number, "tests": [], "follow_ups": 0}
            group = groups.setdefault(crash["title"], new)
            group["follow_ups"] += crash["follow_up"]
            if number not in group["tests"][-1:]:
                group["tests"].append(number)
    return sorted(groups.values(), key=lambda group: (-len(group["tests"]), group["first"]))


def _files_of(run: Path) -> list[list[Any]]:
    """What else is in the run's directory, for links."""
    wanted = ("run.json", "results.jsonl", "ctrf.json", "coverage.json", "coverage/index.html")
    return [[name, (run / name).stat().st_size] for name in wanted if (run / name).is_file()]


def _relative(run: Path, beside: Path) -> str:
    """The way from the page to the run's directory, as the beginning of a URL."""
    way = os.path.relpath(run.absolute(), beside)
    return "" if way == "." else quote(way) + "/"


def packed(name: str, content: dict[str, Any]) -> Iterator[bytes]:
    """A test's details as an element of the page; nothing if there are none."""
    if content:
        # A level that is as good as the highest for consoles, in a third of its time.
        data = zlib.compress(dump(_finite(content)).encode(), 6)
        yield b'<script type="application/x-hil" id="%s">' % name.encode()
        yield base64.b64encode(data)
        yield b"</script>\n"


def dump(content: object) -> str:
    """JSON in ASCII, as short as it can be."""
    return json.dumps(content, separators=(",", ":"), default=str)


def embedded(content: object) -> str:
    """JSON within a script element: no ``<`` can end it, or begin a comment."""
    text = dump(_finite(content))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _finite(content: Any) -> Any:
    """Without NaN and infinities, which a browser's JSON has no words for."""
    if isinstance(content, float):
        return content if content - content == 0 else None
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return content


def _static(gathered: Gathered) -> Iterable[str]:
    """What a reader without JavaScript gets: the outcomes, and what went wrong."""
    yield f"<p>{html.escape(_counts(gathered))}</p>\n<ul>\n"
    bad = [test for test in gathered.tests if test.bad]
    for test in bad[:_MOST_STATIC]:
        name = html.escape(f"{test.outcome}: {test.nodeid} on {test.target or 'no target'}")
        yield f"<li>{name}<br>{html.escape(test.reason)}</li>\n"
    if len(bad) > _MOST_STATIC:
        yield f"<li>… and {len(bad) - _MOST_STATIC} more</li>\n"
    yield "</ul>"


def _counts(gathered: Gathered) -> str:
    counts = gathered.counts
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "no tests"


def _script() -> str:
    parts = "\n".join(source(name) for name in _SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


@cache
def source(name: str) -> str:
    """One of the page's own files."""
    return files("pytest_hil.artifacts.report").joinpath("page", name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
