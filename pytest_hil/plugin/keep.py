"""``--hil-keep``: the machine of a failed test is saved in the very state in which it failed."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import options
from pytest_hil.plugin.artifacts import directory_of, place_of, warn
from pytest_hil.plugin.bench import accel, boards_file
from pytest_hil.plugin.items import Attempt, Use, attempt_of
from pytest_hil.plugin.selection import wanted_of

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
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    attempt = attempt_of(item)
    mode = item.config.getoption("hil_keep")
    if attempt is None or mode == "none" or not attempt.uses or report.when == "teardown":
        return report
    # Now, and not when the targets are closed: by then the fixtures' ends have been at work.
    if report.failed or (mode == "all" and report.when == "call"):
        _keep(item, attempt)
    return report


def _keep(item: pytest.Item, attempt: Attempt) -> None:
    kept = [use for use in attempt.uses if _save(item, use)]
    if kept:
        directory_of(item).update(machine=_facts(item, kept))
        item.stash[KEPT] = f"pytest-hil open {item.nodeid!r}"


def _save(item: pytest.Item, use: Use) -> bool:
    from pytest_hil.qemu.guest import Guest

    assert isinstance(use.target, Guest)
    if use.target.closed:
        return False
    if "snapshot" not in use.target.features:
        return _not_kept(item, use, "a machine without an agent cannot be saved")
    if use.target.died() is not None:
        return _not_kept(item, use, "it had died")
    path = place_of(item, use.label) / MACHINE
    try:
        path.mkdir()
        use.target.save(path)
    except (HilError, OSError) as error:
        return _not_kept(item, use, str(error))
    return True


def _not_kept(item: pytest.Item, use: Use, why: str) -> bool:
    name = use.label or use.target.name
    warn(item.config, f"the machine {name} of {item.nodeid} was not kept: {why}", item.nodeid)
    return False


def _facts(item: pytest.Item, kept: list[Use]) -> dict[str, Any]:
    """What makes the same target again: for ``pytest-hil open``."""
    config = item.config
    wanted = wanted_of(item)
    return {
        "directories": [f"{use.label}/{MACHINE}" if use.label else MACHINE for use in kept],
        "target": kept[0].target.name,
        "changes": dict(wanted.changes) if wanted else {},
        "root": config.rootpath,
        "boards": boards_file(config),
        "accel": accel(config),
        "kernel": config.getoption("hil_kernel"),
        "kernel_modules": config.getoption("hil_kernel_modules"),
    }
