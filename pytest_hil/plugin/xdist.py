"""pytest-xdist: what its workers are given, what is cleaned up after one that died, and that they
end with their controller.

xdist need not be installed: nothing here imports it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from typing import Any

import pytest

from pytest_hil.plugin import chosen
from pytest_hil.plugin.artifacts import RUN, run_of
from pytest_hil.plugin.status import LINK, terminal_of

_WORKERS = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """A worker notices that its controller is gone: others wait for its boards.

    Execnet would let the test go on for five seconds.
    """
    if not hasattr(config, "workerinput") or not chosen.names(config):
        return
    with contextlib.suppress(OSError):  # it is gone already: execnet knows
        controller = os.pidfd_open(os.getppid())
        threading.Thread(
            target=_end_with, args=(controller,), name="hil-controller", daemon=True
        ).start()


def _end_with(process: int) -> None:
    """Interrupt what runs here, as Ctrl-C does, when a process has ended."""
    end = select.poll()
    end.register(process, select.POLLIN)
    end.poll()
    os.close(process)
    main = threading.main_thread().ident
    assert main is not None
    # To this thread: then it does not sleep on.
    signal.pthread_kill(main, signal.SIGINT)


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
