"""``--hil-keep``: the machine of a failed test is saved in the very state in which it failed."""

from __future__ import annotations

import shlex
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import options
from pytest_hil.plugin.artifacts import directory_of, warn
from pytest_hil.plugin.bench import accel, boards_file
from pytest_hil.plugin.items import Use, attempt_of

if TYPE_CHECKING:
    from pytest_hil.qemu.guest import Guest

KEPT = pytest.StashKey[str]()
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
        # One a test: its `hil`, or what it opened first.
        _keep(item, attempt.uses[0])
    return report


def _keep(item: pytest.Item, use: Use) -> None:
    """Save a target's machine, or warn why it cannot be."""
    path = directory_of(item).path / MACHINE
    if why := _unable(use):
        return _not_kept(item, why)
    try:
        path.mkdir()
        cast("Guest", use.target).save(path)
    except (HilError, OSError) as error:
        return _not_kept(item, str(error))
    directory_of(item).update(machine=_facts(item, use))
    item.stash[KEPT] = f"pytest-hil open {shlex.quote(item.nodeid)}"


def _unable(use: Use) -> str:
    from pytest_hil.config import QemuTarget

    if use.target.closed:
        return "it had been closed"
    if use.target.died() is not None:
        return "it had died"
    if not isinstance(use.wanted.target, QemuTarget):
        return "it is a board"
    return "" if "snapshot" in use.target.features else "one without an agent cannot be saved"


def _not_kept(item: pytest.Item, why: str) -> None:
    warn(item.config, f"the machine of {item.nodeid} was not kept: {why}", item.nodeid)


def _facts(item: pytest.Item, use: Use) -> dict[str, Any]:
    """What makes the same target again: for ``pytest-hil open``."""
    config = item.config
    wanted = use.wanted
    return {
        "target": wanted.name,
        "overrides": dict(wanted.changes),
        "root": config.rootpath,
        "boards": boards_file(config),
        "accel": accel(config),
        "kernel": config.getoption("hil_kernel"),
        "kernel_modules": config.getoption("hil_kernel_modules"),
    }
