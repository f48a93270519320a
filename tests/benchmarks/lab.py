"""Twelve tests of half a second on two boards and two workers: a whole run of pytest.

The boards are those of the rig, switched on and not logged in when the first run begins, with a
serial line by TCP. Ours finds out which worker gets which board; labgrid has no such thing, so a
thin fixture gives each worker a place of its own, for the whole run, by labgrid's client.
"""

from __future__ import annotations

import json

from pytest_hil.rig.board import PASSWORD
from pytest_hil.rig.rig import Rig
from tests.benchmarks.context import Context
from tests.benchmarks.peer import REQUIREMENT, environment
from tests.benchmarks.pytest_run import run_pytest
from tests.benchmarks.result import Line, at_least, at_most, line
from tests.lab.labgrid_site import Labgrid

_TEST = """\
import pytest

@pytest.mark.parametrize("number", range(12))
def test_board(hil, number):
    hil.run("sleep 0.5")
"""

_PEERS_TEST = """\
import pytest

@pytest.mark.parametrize("number", range(12))
def test_board(shell, number):
    shell.run_check("sleep 0.5")
"""

_FIXTURE = """\
import subprocess
import pytest
from labgrid import Environment

CLIENT = {client}

@pytest.fixture(scope="session")
def shell(worker_id, tmp_path_factory):
    place = "rig" + str(int(worker_id.removeprefix("gw")) + 1)
    subprocess.run([*CLIENT, "-p", place, "acquire"], check=True, stdout=subprocess.DEVNULL)
    try:
        settings = tmp_path_factory.mktemp("labgrid") / "env.yaml"
        settings.write_text({settings!r}.replace("PLACE", place))
        target = Environment(str(settings)).get_target("main")
        try:
            yield target.get_driver("ShellDriver")
        finally:
            target.cleanup()
    finally:
        subprocess.run([*CLIENT, "-p", place, "release"], check=True, stdout=subprocess.DEVNULL)
"""


def measure(context: Context) -> list[Line]:
    python = environment(context.bench.cache, context.tell, REQUIREMENT, "pytest-xdist==3.8.0")
    root = context.scratch / "lab"
    (root / "coordinator").mkdir(parents=True)
    with Rig(boards=2) as rig, Labgrid(root / "coordinator") as labgrid:
        for board in rig.boards:
            board.power(True)
            host, port = board.outside.console["address"].rsplit(":", 1)
            serial = {"host": host, "port": int(port), "protocol": "raw"}
            labgrid.export(board.name, {board.name: {"NetworkSerialPort": serial}})
            labgrid.place(board.name, f"{board.name}/*/*")

        def ours() -> float:
            return run_pytest(
                root / "ours",
                {"test_lab.py": _TEST},
                *(f"--hil-boards={rig.boards_toml}", "--hil-target=rig", "-n", "2"),
                plugins=("xdist.plugin", "pytest_hil.plugin"),
                env={**rig.environment, "PYTEST_HIL_LAB": str(root / "leases")},
            )

        def peer() -> float:
            return run_pytest(
                root / "peer",
                {"test_lab.py": _PEERS_TEST, "conftest.py": _fixture(labgrid)},
                *("-n", "2"),
                plugins=("xdist.plugin",),
                python=str(python / "bin" / "python"),
            )

        sides = [ours, peer]
        for side in sides:
            side()  # compiles what it needs
        found: dict[object, list[float]] = {side: [] for side in sides}
        rounds = context.times(9, 3)
        for number in range(rounds):
            context.tell(f"lab: {number + 1} of {rounds}")
            for side in sides:
                found[side].append(side())
            # Each goes first as often as the other: what drifts on the host meets both.
            sides.reverse()
    bounds = at_most(4.0), at_least(1.4, "ratio")
    return [line("lab", found[ours], "s", *bounds, peer=found[peer])]


def _fixture(labgrid: Labgrid) -> str:
    shell = {
        "prompt": "# ",
        "login_prompt": "login: ",
        "username": "root",
        "password": PASSWORD,
    }
    settings = {
        "targets": {
            "main": {
                "resources": {"RemotePlace": {"name": "PLACE"}},
                "drivers": {"SerialDriver": {}, "ShellDriver": shell},
            }
        },
        "options": {"coordinator_address": labgrid.address},
    }
    return _FIXTURE.format(client=labgrid.command(), settings=json.dumps(settings))
