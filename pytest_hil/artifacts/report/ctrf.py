"""ctrf.json: a run in the Common Test Report Format, for the tools that read that (ctrf.io)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from pytest_hil.artifacts.disk import write_json
from pytest_hil.artifacts.report.gather import BAD, Gathered, Test

NAME: Final = "ctrf.json"
SPECIFICATION: Final = "0.1.0"
_SPACE: Final = uuid.UUID("6b2ac8a0-3f0b-4a50-9d0a-6c1f2f6f9d51")

# Its five words. What has no end is "other"; a try that was followed by another is none of them.
_STATUS: Final = {
    "passed": "passed",
    "xpassed": "passed",
    "failed": "failed",
    "error": "failed",
    "skipped": "skipped",
    "xfailed": "skipped",
    "interrupted": "other",
    "running": "pending",
    "rerun": "failed",
}
_ATTACHMENTS: Final = {
    "console.log": "text/plain",
    "crash.json": "application/json",
    "crash.txt": "text/plain",
    "usb.pcap": "application/vnd.tcpdump.pcap",
}


def write(gathered: Gathered, output: Path) -> None:
    """Write the file, whole or not at all. Raises OSError that names ``output``."""
    write_json(output, document(gathered))


def document(gathered: Gathered) -> dict[str, Any]:
    """The whole of it. All tries at a test on a target are one test; its outcome is the last's."""
    tries: dict[tuple[str, str], list[Test]] = {}
    for test in gathered.tests:
        tries.setdefault((test.nodeid, test.target), []).append(test)
    tests = [_test(all_of_it) for all_of_it in tries.values()]
    counted = dict.fromkeys(("passed", "failed", "skipped", "pending", "other"), 0)
    for made in tests:
        counted[made["status"]] += 1
    start, stop = _ms(gathered.start), _ms(gathered.end)
    return {
        "reportFormat": "CTRF",
        "specVersion": SPECIFICATION,
        "reportId": str(uuid.uuid5(_SPACE, gathered.run.id)),
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "generatedBy": "pytest-hil",
        "results": {
            "tool": {"name": "pytest", "version": _pytest(gathered)},
            "summary": {
                "tests": len(tests),
                **counted,
                "flaky": sum(bool(test.get("flaky")) for test in tests),
                "start": start,
                "stop": stop,
                "duration": stop - start,
                "extra": {"run": gathered.run.id, "status": gathered.run.status},
            },
            "tests": tests,
        },
    }


def _test(tries: Sequence[Test]) -> dict[str, Any]:
    last = tries[-1]
    file, _, rest = last.nodeid.partition("::")
    name = last.nodeid
    found: dict[str, Any] = {
        "id": str(uuid.uuid5(_SPACE, f"{last.nodeid}@{last.target}")),
        "name": f"{name} on {last.target}" if last.target else name,
        **_facts(last),
        "rawStatus": last.outcome,
        "filePath": file,
        "suite": [file, *rest.partition("[")[0].split("::")[:-1]],
    }
    if last.markers:
        found["tags"] = list(last.markers)
    if last.target:
        found["labels"] = {"target": last.target}
    if last.worker:
        found["threadId"] = last.worker
    if len(tries) > 1:
        found["retries"] = len(tries) - 1
        found["retryAttempts"] = [
            {"attempt": number, **_facts(test)} for number, test in enumerate(tries[:-1], 1)
        ]
        found["flaky"] = last.outcome == "passed" and any(
            t.outcome in BAD | {"rerun"} for t in tries[:-1]
        )
    if last.crashes:
        found["extra"] = {"crashes": [crash.title for crash in last.crashes]}
    return found


def _facts(test: Test) -> dict[str, Any]:
    """What a test and a try at it have in common."""
    found: dict[str, Any] = {
        "status": _STATUS[test.outcome],
        "duration": _ms(test.duration or 0.0),
    }
    if test.start:
        found |= {"start": _ms(test.start), "stop": _ms(test.end)}
    message = test.crashes[0].title if test.crashes else test.reason
    if message:
        found["message"] = message
    if test.text:
        found["trace"] = test.text
    attached = [
        {"name": name, "contentType": kind, "path": f"{test.path.name}/{name}"}
        for name, kind in _ATTACHMENTS.items()
        if test.path is not None and (test.path / name).is_file()
    ]
    if attached:
        found["attachments"] = attached
    return found


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _pytest(gathered: Gathered) -> str:
    versions = gathered.run.facts.get("versions")
    if isinstance(versions, dict) and versions.get("pytest"):
        return str(versions["pytest"])
    try:
        return version("pytest")
    except PackageNotFoundError:
        return "unknown"


def dumped(gathered: Gathered) -> str:
    return json.dumps(document(gathered), indent=2)
