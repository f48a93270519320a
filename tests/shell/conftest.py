"""A shell through the real agent, running on this machine."""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterator

import pytest

from pytest_hil import process
from pytest_hil.agent import build
from pytest_hil.process import Process
from pytest_hil.shell.agent import AgentShell

# The agent may be asked to set the clock or to switch off: not on this machine.
HARMLESS = ["setpriv", "--bounding-set", "-sys_boot,-sys_time,-sys_admin"]


@pytest.fixture(scope="session")
def agent_command() -> list[str]:
    arch = {"armv7l": "arm"}.get(platform.machine(), platform.machine())
    return [*(HARMLESS if os.geteuid() == 0 else []), str(build.binary(arch))]


@pytest.fixture
def agent_and_shell(agent_command: list[str]) -> Iterator[tuple[Process, AgentShell]]:
    ours, theirs = socket.socketpair()
    argv = [*agent_command, "--fd", str(theirs.fileno())]
    with theirs, process.start(argv, pass_fds=[theirs.fileno()]) as child:
        theirs.close()
        with AgentShell(ours, name="here") as shell:
            shell.hello(10)
            yield child, shell


@pytest.fixture
def agent(agent_and_shell: tuple[Process, AgentShell]) -> Process:
    return agent_and_shell[0]


@pytest.fixture
def shell(agent_and_shell: tuple[Process, AgentShell]) -> AgentShell:
    return agent_and_shell[1]
