"""pytest-xdist: what its workers are given, and what is cleaned up after one that died.

xdist need not be installed: nothing here imports it.
"""

from __future__ import annotations

from typing import Any

import pytest

from pytest_hil.plugin import chosen
from pytest_hil.plugin.artifacts import RUN, run_of
from pytest_hil.plugin.status import LINK, terminal_of

_WORKERS = pytest.StashKey[list[str]]()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """A worker is about to be started: give it what all workers share, as plain strings."""
    config: pytest.Config = node.config
    if not chosen.names(config):
        return
    run = run_of(config)
    node.workerinput[RUN] = str(run.path)
    terminal = terminal_of(config)
    if terminal is not None:
        node.workerinput[LINK] = terminal.listen()
    workers = config.stash.setdefault(_WORKERS, [])
    workers.append(node.gateway.id)
    run.update(workers=workers)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker has ended, or was killed: then its machines died with it."""
    config: pytest.Config = node.config
    terminal = terminal_of(config)
    if terminal is not None:
        terminal.display.status(node.gateway.id, "")
    if error is not None and chosen.names(config):
        from pytest_hil.qemu import runtime
        from pytest_hil.qemu.room import Room

        Room().reap()
        runtime.reap()
    problem = getattr(node, "workeroutput", {}).get(chosen.PROBLEM)
    if problem:
        raise pytest.UsageError(problem)
