"""``--hil-keep``: the machine of a failed test is saved in the very state in which it failed."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import options
from pytest_hil.plugin.artifacts import directory_of, warn
from pytest_hil.plugin.bench import accel, boards_file
from pytest_hil.plugin.items import Use, attempt_of

if TYPE_CHECKING:
    from pytest_hil.qemu.guest import Guest

# Which one was kept, and how it is opened.
KEPT = pytest.StashKey[tuple[Use, str]]()
MACHINE = "machine"


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-keep",
        choices=("none", "failed", "all"),
        default="none",
        help="which tests' machines are saved as they were at the end of the test, for "
        "`pytest-hil open TEST` (default: none)",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    mode = item.config.getoption("hil_keep")
    if attempt is None or mode == "none" or not attempt.uses or report.when == "teardown":
        return report
    # Now, and not when the targets are closed: by then the fixtures' ends have been at work.
    if report.failed or (mode == "all" and report.when == "call"):
        _keep_one(item, attempt.uses)
    return report


def _keep_one(item: pytest.Item, uses: Sequence[Use]) -> None:
    """What crashed, else its `hil` or what it opened first; of those that can be.

    If none can be, a warning says why, and its meta.json.
    """
    reasons = []
    for use in sorted(uses, key=lambda use: not use.crashes):
        if not (why := _keep(item, use)):
            return
        reasons.append(why)
    directory_of(item).update(not_kept=reasons[0])
    warn(item.config, f"the machine of {item.nodeid} was not kept: {reasons[0]}", item.nodeid)


def _keep(item: pytest.Item, use: Use) -> str:
    """Save a target's machine; why it cannot be, "" if it was."""
    if why := _unable(use):
        return why
    path = directory_of(item).path / MACHINE
    try:
        path.mkdir()
        cast("Guest", use.target).save(path)
    except (HilError, OSError) as error:
        shutil.rmtree(path, ignore_errors=True)
        return str(error)
    directory_of(item).update(machine=_facts(item, use))
    item.stash[KEPT] = use, f"pytest-hil open {shlex.quote(item.nodeid)}"
    return ""


def _unable(use: Use) -> str:
    from pytest_hil.config import QemuTarget

    if use.target.closed:
        return "it had been closed"
    if use.target.died() is not None:
        return "it had died"
    if not isinstance(use.wanted.target, QemuTarget):
        return "it is a board"
    return "" if "snapshot" in use.target.features else "one without an agent cannot be saved"


def _facts(item: pytest.Item, use: Use) -> dict[str, Any]:
    """What makes the same target again: for ``pytest-hil open``."""
    config = item.config
    wanted = use.wanted
    return {
        "target": wanted.name,
        "label": use.label,
        "overrides": dict(wanted.changes),
        "root": config.rootpath,
        "boards": boards_file(config),
        "accel": accel(config),
        "kernel": config.getoption("hil_kernel"),
        "kernel_modules": config.getoption("hil_kernel_modules"),
    }
