"""The report of a failed test: what became of its targets, and what they said last."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from pytest_hil.errors import visible
from pytest_hil.plugin import crashes
from pytest_hil.plugin.artifacts import place_of
from pytest_hil.plugin.items import Use, attempt_of
from pytest_hil.plugin.keep import KEPT

LINES = 40
BEFORE = 4
LINES_BEFORE_CRASH = 10
BEGIN = "---- here the test begins ----"
NOTHING = "(it said nothing)"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    if report.failed and attempt is not None:
        for use in attempt.uses:
            if said := crashes.section(item, use):
                report.sections.append((f"hil: crash{_of(use)}", said))
            report.sections.append((f"hil: what happened{_of(use)}", _story(item, use)))
            report.sections.append((f"hil: console{_of(use)} ({_which(use)})", _console(item, use)))
    return report


def _of(use: Use) -> str:
    return f" to {use.label}" if use.label else ""


def _story(item: pytest.Item, use: Use) -> str:
    lines = [
        f"target     {use.target.name}",
        f"machine    {use.target.origin_text}",
        f"artifacts  {place_of(item, use.label)}",
    ]
    if (died := use.target.died()) is not None:
        lines.append(f"it died    {died.message.splitlines()[0]}")
    kept, how = item.stash.get(KEPT, (None, ""))
    if kept is use:
        lines.append(f"kept       {how}")
    return "\n".join(lines)


def _which(use: Use) -> str:
    return "before it crashed" if use.crashes else f"last {LINES} lines"


def _console(item: pytest.Item, use: Use) -> str:
    log = place_of(item, use.label) / "console.log"
    said = _said_before_crash(use) if use.crashes else said_last(use)
    return f"{said}\n[all of it: {log}]"


def _readable(said: str) -> str:
    """What the target said, without what we said to it, and without what steers a terminal."""
    from pytest_hil.shell.serial_trace import without

    return visible(without(said).rstrip())


def _said_before_crash(use: Use) -> str:
    """The crash itself has a section of its own."""
    said = use.target.console.text()
    first = use.crashes[0].text.strip().partition("\n")[0].rstrip("\r")
    before = _readable(said[: max(said.rfind(first), 0)]).splitlines()
    return "\n".join(before[-LINES_BEFORE_CRASH:]) or NOTHING


def said_last(use: Use, *, lines: int = LINES, before: int = BEFORE) -> str:
    """The last lines since the test began, and a few from before where they are not many.

    A clone inherits its template's boot log: pages that say nothing of this test.
    """
    console = use.target.console
    if console is not use.console:
        # It was restored or switched off and on: that was in the test.
        return _readable(console.tail(lines)) or NOTHING
    said = console.since(use.mark)
    since = _readable(said).splitlines()[-lines:]
    earlier = _readable(console.text()[: -len(said) or None]).splitlines()
    room = min(before, lines - len(since))
    head = [*earlier[-room:], BEGIN] if room > 0 and earlier else []
    return "\n".join([*head, *(since or [NOTHING])])
