"""The console and the crashes of a test that went wrong, in the reports of pytest-html and Allure.

Neither need be installed: they are imported only where the user asked for their reports.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.errors import visible
from pytest_hil.plugin.artifacts import made_directory
from pytest_hil.plugin.items import attempt_of

# Bytes of a console: those reports are one file, or copy what they attach.
LAST = 256 * 1024
_CRASHES = ("crash.txt", "crash.json")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    # When all is over the console is complete, and both reports still take something.
    if report.when != "teardown" or attempt is None:
        return report
    directory = made_directory(item)
    if directory is not None and (report.failed or attempt.worst in ("failed", "error")):
        if html := item.config.getoption("htmlpath", default=None):
            _to_html(report, directory, Path(html))
        if item.config.getoption("allure_report_dir", default=None):
            _to_allure(directory)
    return report


def _to_html(report: pytest.TestReport, directory: Path, page: Path) -> None:
    from pytest_html import extras

    found = []
    for log in _consoles(directory):
        name = _name(directory, log)
        found.append(extras.text(_last(log), name=name))
        found.append(extras.url(os.path.relpath(log, page.absolute().parent), name=f"{name} (all)"))
    found += [extras.text(_last(path), name=path.name) for path in _crashes(directory)]
    setattr(report, "extras", [*getattr(report, "extras", []), *found])  # noqa: B010 - theirs


def _to_allure(directory: Path) -> None:
    import allure

    attach: Any = allure.attach
    for path in (*_consoles(directory), *_crashes(directory)):
        kind = "application/json" if path.suffix == ".json" else "text/plain"
        attach(_last(path), name=_name(directory, path), attachment_type=kind, extension="txt")


def _consoles(directory: Path) -> list[Path]:
    return sorted(p for p in (*directory.glob("console.log"), *directory.glob("*/console.log")))


def _crashes(directory: Path) -> list[Path]:
    return [directory / name for name in _CRASHES if (directory / name).is_file()]


def _name(directory: Path, path: Path) -> str:
    label = path.parent.relative_to(directory).as_posix()
    return path.name if label == "." else f"{path.name} of {label}"


def _last(path: Path) -> str:
    """The end of a file, as text for people."""
    from pytest_hil.console.stream import clean

    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST))
            data = file.read(LAST)
    except OSError as error:
        return f"({error})"
    said = visible(clean(data))
    return f"(the last {LAST} of {size} bytes: {path})\n{said}" if size > LAST else said
