"""What the agent can only show on a machine that is its own: clock, name, randomness, power."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pytest_hil.errors import ChannelLost, InfrastructureError
from pytest_hil.qemu.guest import Guest
from pytest_hil.shell.agent import AgentShell

pytestmark = pytest.mark.machine


@pytest.fixture
def agent(guest: Guest) -> AgentShell:
    assert guest.machine.shell is not None
    return guest.machine.shell


def test_the_clock(agent: AgentShell) -> None:
    agent.set_clock(1_234_567_890 * 10**9)
    assert agent.run("date -u +%Y-%m-%d").stdout == "2009-02-13\n"


def test_name_and_machine_id(agent: AgentShell) -> None:
    agent.set_hostname("box-7")
    agent.set_machine_id("0123456789abcdef0123456789abcdef")
    assert agent.run("hostname; cat /etc/machine-id").stdout.split() == [
        "box-7",
        "0123456789abcdef0123456789abcdef",
    ]


def test_a_name_that_is_none_is_refused_with_the_reason(agent: AgentShell) -> None:
    with pytest.raises((InfrastructureError, ValueError), match="hostname"):
        agent.set_hostname("x" * 100)
    assert agent.run("echo on").stdout == "on\n"


def test_randomness_is_accepted(agent: AgentShell) -> None:
    agent.reseed(os.urandom(64))
    with pytest.raises((InfrastructureError, ValueError)):
        agent.reseed(b"short")


def test_many_operations_at_once(agent: AgentShell, tmp_path: Path) -> None:
    data = os.urandom(2_000_000)
    (tmp_path / "file").write_bytes(data)

    def one(number: int) -> str:
        if number % 5 == 0:
            agent.put(tmp_path / "file", f"/tmp/file{number}")
            return agent.run(f"sha256sum < /tmp/file{number}").stdout.split()[0]
        return agent.run(f"sleep 0.0{number}; echo {number}").stdout

    with ThreadPoolExecutor(20) as pool:
        said = list(pool.map(one, range(20)))
    right = hashlib.sha256(data).hexdigest()
    assert said == [right if n % 5 == 0 else f"{n}\n" for n in range(20)]


def test_power_off_ends_the_machine(guest: Guest, agent: AgentShell) -> None:
    agent.power_off()
    assert guest.machine.process.wait(20) == 0
    assert not guest.power.read()
    assert guest.died() is None


def test_reboot_brings_it_back(guest: Guest, agent: AgentShell) -> None:
    before = guest.run("cat /proc/sys/kernel/random/boot_id").stdout
    with guest.machine.monitor.waiter("RESET") as waiter:
        agent.reboot()
        waiter.wait(20)
    assert guest.run("cat /proc/sys/kernel/random/boot_id").stdout != before


def test_the_agent_is_restarted_when_it_dies(guest: Guest, agent: AgentShell) -> None:
    with pytest.raises(InfrastructureError):
        guest.run("kill -9 $(pidof hil-agent)", timeout=3)
    deadline = time.monotonic() + 20
    while True:
        try:
            agent.hello(5)
            break
        except ChannelLost:
            assert time.monotonic() < deadline
    assert guest.run("echo back").stdout == "back\n"


def test_ctrl_c_kills_the_command_in_the_guest(guest: Guest) -> None:
    threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        guest.run("exec sleep 4321")
    # Its group is killed without being waited for.
    guest.run("while ps | grep '[s]leep 4321'; do usleep 10000; done", timeout=10)
