"""Which targets the tests run on, and what is wrong with them, said before the first test."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import HilError, ImageError
from pytest_hil.plugin import options
from pytest_hil.plugin.bench import accel, bench_of
from pytest_hil.plugin.items import worker_id

if TYPE_CHECKING:
    from pytest_hil.bench import Bench
    from pytest_hil.config import QemuTarget

# What a worker found to be wrong, for the controller to say.
PROBLEM = "hil_problem"

_PROBLEM = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-target",
        metavar="NAME",
        action="append",
        help="what to test on: qemu, or a target of boards.toml; given several times, the tests "
        "run on each. Without it, tests that use hil are skipped",
    )
    parser.addini("hil_target", "the targets where there is no --hil-target", type="args")


def names(config: pytest.Config) -> tuple[str, ...]:
    """The chosen targets' names, each once, in the order in which they were given."""
    given: list[str] = config.getoption("hil_target") or config.getini("hil_target")
    return tuple(dict.fromkeys(given))


def check(config: pytest.Config) -> None:
    """Find out what can be known without starting anything. Raises ConfigError, ToolMissing."""

    from pytest_hil.config import PoolTarget, QemuTarget

    bench = bench_of(config)
    for name in names(config):
        target = bench.describe(name)
        if not isinstance(target, QemuTarget):
            if worker_id(config):
                continue  # the controller has done it
            from pytest_hil.board.check import check as check_board
            from pytest_hil.board.check import check_secrets

            for board in target.boards if isinstance(target, PoolTarget) else (target,):
                check_board(board)
                if not config.option.collectonly:
                    check_secrets(board)
            continue
        if config.option.collectonly:
            continue
        from pytest_hil import process
        from pytest_hil.plugin.known import check_accel
        from pytest_hil.qemu import emulator

        process.find("setpriv", package="util-linux")
        emulator.find(target.arch, bench.cache)
        _check_cache(bench, target)
        if accel(config) == "kvm":
            check_accel(bench, target)


def _check_cache(bench: Bench, target: QemuTarget) -> None:
    """A cache that can only be read does, if the image is in it."""
    root = bench.cache.root
    there = next(path for path in (root, *root.parents) if path.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return
    from pytest_hil.plugin.known import look

    if not look(bench, target).image:
        raise ImageError(
            f"the cache {root} cannot be written, and the image {target.image} is not in it",
            mend="make it writable, or put the cache elsewhere: PYTEST_HIL_CACHE=DIR",
        )


def usable(config: pytest.Config) -> bool:
    """Whether there are targets, and nothing is known to be wrong with them.

    Asked while tests are collected, where an exception would be this one file's error: what is
    wrong is said when all are collected.
    """
    if _PROBLEM not in config.stash:
        config.stash[_PROBLEM] = _problem(config) if names(config) else ""
    return bool(names(config)) and not config.stash[_PROBLEM]


def _problem(config: pytest.Config) -> str:
    try:
        check(config)
    except (HilError, pytest.UsageError) as error:
        return str(error)
    return ""


def stop_if_unusable(session: pytest.Session) -> None:
    """Some test needs a target: end the run if there is anything wrong with them."""
    problem = session.config.stash.get(_PROBLEM, "")
    if not problem:
        return
    if worker_id(session.config):
        session.config.workeroutput[PROBLEM] = problem  # type: ignore[attr-defined]
        raise session.Failed(problem)
    raise pytest.UsageError(problem)


def pytest_configure(config: pytest.Config) -> None:
    # Who names a target wants to use it. One of the ini file's may be of no use to this run:
    # that is known only when a test that wants it was collected.
    if config.getoption("hil_target") and not worker_id(config) and not usable(config):
        raise pytest.UsageError(config.stash[_PROBLEM])
