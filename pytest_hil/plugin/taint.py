"""Crashes that a console does not show: a kernel that is quiet is tainted all the same."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin.items import Attempt, Use

if TYPE_CHECKING:
    from pytest_hil.crash import Crash, Rules

# Of /proc/sys/kernel/tainted: machine check, bad page, Oops or BUG, warning, soft lockup.
_CRASHES = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14


def begin(config: pytest.Config, use: Use) -> None:
    """A test begins: what its kernel is tainted with already is none of its.

    One that cannot be asked (the last test left it switched off, or panicked) is not judged.
    """
    if config.getini("hil_taint") and "shell" in use.target.features:
        with contextlib.suppress(HilError):
            use.taint = (use.target.kernel.taint.bits, len(use.target.crash_watch.titles))


def unsaid(
    config: pytest.Config,
    attempt: Attempt,
    rules: Callable[[], Rules],
) -> Iterator[tuple[Use, Crash]]:
    """The crash of each kernel that was tainted since, if its console showed none."""
    for use in attempt.uses if config.getini("hil_taint") else ():
        watch = use.target.crash_watch
        if use.taint is None or len(watch.titles) != use.taint[1] or use.target.closed:
            continue
        try:
            new = use.target.kernel.taint.bits & ~use.taint[0] & _CRASHES
            if not new:
                continue
            log = use.target.run("dmesg", check=False).stdout
        except HilError:
            continue  # it is gone, and says so in another way
        crash = _crash(new, log, rules())
        watch.titles.append(crash.title)
        if not any(one.search(crash.title) for one in watch.ignore):
            yield use, crash


def _crash(bits: int, log: str, rules: Rules) -> Crash:
    """The last one in the kernel's own log; else what the taint means."""
    from pytest_hil.crash import Crash, Detector, Severity
    from pytest_hil.kernel import Taint

    detector = Detector(rules)
    found = [*detector.feed(log.encode()), *detector.finish()]
    if found:
        return next((crash for crash in reversed(found) if not crash.follow_up), found[-1])
    meaning = ", ".join(Taint(bits).meanings)
    text = (
        f"/proc/sys/kernel/tainted: {meaning}; neither the console nor dmesg has a report of it\n"
    )
    return Crash("taint", Severity.ERROR, f"kernel tainted: {meaning}", text, 0, len(text))
