"""Leases from a real labgrid coordinator, and whole runs on what real exporters offer."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.lab import labgrid_session
from pytest_hil.lab.labgrid import LabgridLab
from pytest_hil.lab.lease import Busy
from pytest_hil.lab.locks import is_held
from pytest_hil.lab.registry import LabError
from pytest_hil.rig.rig import Rig
from tests.lab.labgrid_site import PATIENCE, Labgrid, Relays, wait

pytestmark = pytest.mark.slow

NAMES = ("one", "two", "three", "odd")


@pytest.fixture(scope="module")
def labgrid(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Labgrid]:
    with Labgrid(tmp_path_factory.mktemp("labgrid")) as found:
        for name in NAMES[:3]:
            found.place(name, tags=["kind=plain"])
        found.place("odd")
        yield found


Make = Callable[..., LabgridLab]


@pytest.fixture
def lab(labgrid: Labgrid, tmp_path: Path) -> Iterator[Make]:
    """``lab()``: another client of the coordinator; ``said`` gets what it says."""
    made: list[LabgridLab] = []

    def make(said: list[str] | None = None) -> LabgridLab:
        say = said.append if said is not None else lambda _line: None
        found = LabgridLab(labgrid.address, directory=tmp_path / "lab", say=say)
        made.append(found)
        return found

    yield make
    for one in made:
        one.close()
    assert labgrid.held() == {}
    assert labgrid.reserved() == []
    assert not list((tmp_path / "lab").glob("*/*-hil-*")), "no name is left either"


def test_a_place_is_taken_and_given_back(labgrid: Labgrid, lab: Make) -> None:
    here = lab()
    with here.acquire(["one", "two"]) as lease:
        assert lease.board == "one"
        (name,) = labgrid.held().values()
        assert re.search(rf"-hil-{os.getpid()}-[0-9a-f]{{8}}$", name)
        host, user = name.split("/")
        assert re.search(
            rf"^{re.escape(user)} +{re.escape(host)} +one ", labgrid.client("who"), re.M
        )
        assert lease.lost == ""
        with pytest.raises(Busy, match=f"one is not free:\n    one: {name} has it") as caught:
            lab().acquire(["one"])
        assert [(one.host, one.user) for one in caught.value.holders] == [(host, user)]
    assert labgrid.held() == {}
    lease.release()


def start_waiting(lab: LabgridLab, *names: str) -> tuple[list[Any], Any]:
    """Ask for one of those in a thread, until it has been queued."""
    import threading

    found: list[Any] = []
    queued = threading.Event()

    def run() -> None:
        try:
            found.append(lab.acquire(names, wait=PATIENCE, on_wait=lambda _text: queued.set()))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert queued.wait(PATIENCE)
    return found, thread


def test_who_waits_gets_it_when_it_is_given_back(labgrid: Labgrid, lab: Make) -> None:
    here, there = lab(), lab()
    leases = [here.acquire([name]) for name in NAMES[:3]]
    found, thread = start_waiting(there, *NAMES[:3])
    # By the tag that they share, and that the odd one has not.
    assert [one.wants for one in here.queue()] == [("one", "two", "three")]
    assert len(labgrid.reserved()) == 1
    leases[1].release()
    thread.join(PATIENCE)
    assert found[0].board == "two"
    assert labgrid.reserved() == [], "a reservation is no longer than the wait"
    for one in [*leases, *found]:
        one.release()


def test_who_waits_for_what_no_tag_tells_apart(labgrid: Labgrid, lab: Make) -> None:
    here, there = lab(), lab()
    leases = {name: here.acquire([name]) for name in NAMES}
    found, thread = start_waiting(there, "one", "odd")
    assert sorted(one.wants for one in here.queue()) == [("odd",), ("one",)]
    leases["two"].release()
    leases["odd"].release()
    thread.join(PATIENCE)
    assert found[0].board == "odd"
    assert labgrid.reserved() == []
    for one in [*leases.values(), *found]:
        one.release()


def test_who_gives_up_leaves_no_reservation(labgrid: Labgrid, lab: Make) -> None:
    with lab().acquire(["one"]):
        with pytest.raises(Busy, match=r"after 0?\.?\d+"):
            lab().acquire(["one"], wait=0.3)
        assert labgrid.reserved() == []


def test_somebody_reserved_it_with_their_own_client(labgrid: Labgrid, lab: Make) -> None:
    token = re.search(r"token: (\w+)", labgrid.client("reserve", "name=one"))
    assert token
    with pytest.raises(Busy, match=f"one: it is kept for the reservation {token[1]}"):
        lab().acquire(["one"])
    found, thread = start_waiting(lab(), "one")
    labgrid.client("cancel-reservation", token[1])
    thread.join(PATIENCE)
    found[0].release()


def test_a_lease_that_somebody_takes_away_is_lost(labgrid: Labgrid, lab: Make) -> None:
    here = lab()
    lease = here.acquire(["one"])
    labgrid.client("-p", "one", "release", "--kick")
    labgrid.client("-p", "one", "acquire")
    owner = labgrid.held()["one"]
    here.acquire(["two"]).release()  # all that the coordinator has said is seen by now
    assert lease.lost == f"{owner} has the place one now"
    lease.release()
    assert labgrid.held()["one"] == owner, "what is theirs is not released"
    labgrid.client("-p", "one", "release")


HOLD = """
import sys, pathlib, time
from pytest_hil.lab.labgrid import LabgridLab
lab = LabgridLab(sys.argv[1], directory=pathlib.Path(sys.argv[2]))
for name in sys.argv[3:]:
    lab.acquire([name])
try:
    lab.acquire(["one"], wait=600, on_wait=lambda text: print("waits", flush=True))
except KeyboardInterrupt:
    raise SystemExit(7)
"""


@pytest.fixture
def holder(labgrid: Labgrid, lab: Make, tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a place, and waits for another one by a reservation."""
    with lab().acquire(["one"]):
        child = subprocess.Popen(
            [sys.executable, "-c", HOLD, labgrid.address, str(tmp_path / "lab"), "two"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == "waits\n"
        assert sorted(labgrid.held()) == ["one", "two"]
        with labgrid.session() as session:
            wait(session, lambda: len(session.reservations()) == 1)
        yield child
        child.kill()
        child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_gives_everything_back(
    labgrid: Labgrid, lab: Make, holder: subprocess.Popen[str], number: signal.Signals
) -> None:
    holder.send_signal(number)
    code = holder.wait(PATIENCE)
    assert code == (7 if number == signal.SIGINT else -number)
    assert sorted(labgrid.held()) == ["one"]
    assert labgrid.reserved() == []
    lab().acquire(["two"]).release()  # and its name is removed


def test_the_next_run_releases_what_a_killed_one_has(
    labgrid: Labgrid, lab: Make, holder: subprocess.Popen[str]
) -> None:
    holder.kill()
    holder.wait()
    assert sorted(labgrid.held()) == ["one", "two"], "the coordinator does not do it"
    assert len(labgrid.reserved()) == 1
    said: list[str] = []
    lab(said).acquire(["three"]).release()
    assert sorted(labgrid.held()) == ["one"]
    assert labgrid.reserved() == []
    assert any(one.startswith("labgrid: released the place two, left by a run") for one in said)


def test_who_waits_releases_what_a_killed_one_has_at_once(
    labgrid: Labgrid, lab: Make, holder: subprocess.Popen[str]
) -> None:
    found, thread = start_waiting(lab(), "two")
    began = time.monotonic()
    holder.kill()
    thread.join(PATIENCE)
    assert found[0].board == "two"
    # Not when the coordinator gives up the reservation, after a minute.
    assert time.monotonic() - began < 10
    found[0].release()
    holder.wait()


def test_another_host_does_not_touch_what_a_killed_one_has(
    labgrid: Labgrid, holder: subprocess.Popen[str], lab: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder.kill()
    holder.wait()
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("LG_HOSTNAME", "elsewhere")
        lab().acquire(["three"]).release()
    assert sorted(labgrid.held()) == ["one", "two"]
    lab().acquire(["three"]).release()
    assert sorted(labgrid.held()) == ["one"]


def test_a_coordinator_that_falls_silent(
    labgrid: Labgrid, lab: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labgrid_session, "CALL", 1.0)
    here = lab()
    lease = here.acquire(["one"])
    labgrid.pause(True)
    try:
        with pytest.raises(LabError, match="did not answer within 1 s"):
            here.acquire(["two"])
    finally:
        labgrid.pause(False)
    lease.release()


def test_a_coordinator_that_is_restarted(labgrid: Labgrid, lab: Make) -> None:
    here = lab()
    lease = here.acquire(["one"])
    session = here._session
    assert session is not None
    labgrid.stop()
    while session.broken is None:
        select.select([session], [], [], PATIENCE)
        session.quiet()
    assert lease.lost == "", "for all that is known"
    with pytest.raises(LabError, match="cannot be reached"):
        here.acquire(["two"])
    labgrid.start()  # it was killed: what it had not saved is gone
    for name in {*NAMES} - set(labgrid.client("places").split()):
        labgrid.place(name, tags=["kind=plain"] if name != "odd" else [])
    assert "coordinator was restarted" in lease.lost
    lease.release()
    here.acquire(["one"]).release()


# --- whole runs ---


TEST = """
import pytest

@pytest.mark.parametrize("number", range({tests}))
def test_it(hil, number):
    assert hil.run(f"echo {{number}}").stdout == f"{{number}}\\n"
"""


class Host:
    """Where runs of pytest are started; they cannot see what other hosts have."""

    def __init__(self, name: str, root: Path, rig: Rig, boards: Path) -> None:
        self.directory = root / name
        self.directory.mkdir()
        self._boards = boards
        self._environment = {
            **os.environ,
            **rig.environment,
            "LG_HOSTNAME": name,
            "PYTEST_HIL_LAB": str(self.directory / "lab"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, tests: str, *words: str, target: str = "rig") -> subprocess.Popen[str]:
        (self.directory / "test_it.py").write_text(tests)
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-s"),
                *(f"--hil-boards={self._boards}", f"--hil-target={target}", *words),
            ],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    with Rig(boards=4, serial=("tcp", "rfc2217", "pty", "tcp")) as found:
        yield found


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory, rig: Rig) -> Iterator[tuple[Labgrid, Path]]:
    """The rig's boards at a coordinator of their own, and the boards.toml that says only that."""
    root = tmp_path_factory.mktemp("boards")
    with Labgrid(root) as labgrid, Relays(rig.boards) as relays:
        groups: dict[str, Any] = {}
        for board in rig.boards:
            power = {"model": "simplerest", "host": relays.url, "index": board.number}
            groups[board.name] = {**serial(board.outside.console), "NetworkPowerPort": power}
        labgrid.export("shelf", groups)
        tables = [f'[lab]\nlabgrid = "{labgrid.address}"\n']
        for board in rig.boards:
            labgrid.place(f"{board.name}-place", f"shelf/{board.name}/*")
            tables.append(
                f'[target.{board.name}]\nbackend = "board"\narch = "{board.arch}"\n'
                f'place = "{board.name}-place"\ntags = ["rig"]\nconsole = "labgrid"\n'
                'power = {driver = "labgrid", off_seconds = 0.05}\n'
                'boot = {driver = "login", user = "root", password = {env = "HIL_RIG_PASSWORD"}}\n'
            )
        path = root / "boards.toml"
        path.write_text("\n".join(tables))
        yield labgrid, path


def serial(console: dict[str, str]) -> dict[str, Any]:
    """A rig's console as an exporter is told of it."""
    if "address" in console:
        host, port = console["address"].rsplit(":", 1)
        return {"NetworkSerialPort": {"host": host, "port": int(port), "protocol": "raw"}}
    if console["port"].startswith("rfc2217://"):
        host, port = console["port"].removeprefix("rfc2217://").rsplit(":", 1)
        return {"NetworkSerialPort": {"host": host, "port": int(port), "speed": 115200}}
    # A tty of the exporter's host: it starts ser2net.
    return {"RawSerialPort": {"port": os.path.realpath(console["port"]), "speed": 115200}}


def passed(out: str) -> list[str]:
    return re.findall(r"^PASSED (\S+)$", out, re.M)


def test_two_hosts_share_four_places(
    tmp_path: Path, rig: Rig, boards: tuple[Labgrid, Path]
) -> None:
    labgrid, path = boards
    alpha, beta = (Host(name, tmp_path, rig, path) for name in ("alpha", "beta"))
    doomed = alpha.start(
        "import time\n" + TEST.format(tests=4) + "    time.sleep(600)\n", "-n", "2"
    )
    with labgrid.session() as session:

        def of(host: str) -> set[str]:
            return {p.name for p in session.places.values() if p.acquired.startswith(f"{host}/")}

        wait(session, lambda: len(of("alpha")) == 2)
        other = beta.start(TEST.format(tests=16), "-n", "2", "--hil-wait=60")
        wait(session, lambda: len(of("beta")) == 2)
        assert not of("alpha") & of("beta")
        lost = of("alpha")
        os.killpg(doomed.pid, signal.SIGKILL)
        doomed.communicate()
        out, _ = other.communicate(timeout=PATIENCE * 3)
        assert other.returncode == 0, out
        assert len(passed(out)) == 16
        session.sync()
        assert of("alpha") == lost, "that host was not there to release them"
        dead = set(labgrid.held().values())
        # The next run of that host wants all places, so it needs what the dead one had.
        following = alpha.start(TEST.format(tests=20), "-n", "4", "--hil-wait=60")
        out, _ = following.communicate(timeout=PATIENCE * 3)
        assert following.returncode == 0, out
        assert len(passed(out)) == 20
        assert out.count("left by a run of this host that was killed") >= 2
        assert len({name for name in dead if name in out}) == len(dead)
    assert labgrid.held() == {}
    assert labgrid.reserved() == []
    assert labgrid.client("who").splitlines()[1:] == []
    assert [one for board in rig.boards for one in board.record.violations] == []


def test_a_run_that_is_told_to_end_gives_everything_back(
    tmp_path: Path, rig: Rig, boards: tuple[Labgrid, Path]
) -> None:
    labgrid, path = boards
    host = Host("gamma", tmp_path, rig, path)
    run = host.start("import time\n" + TEST.format(tests=2) + "    time.sleep(600)\n", "-n", "2")
    with labgrid.session() as session:

        def held() -> int:
            return sum(bool(one.acquired) for one in session.places.values())

        wait(session, lambda: held() == 2)
        run.terminate()
        wait(session, lambda: held() == 0)
    run.communicate(timeout=PATIENCE)
    assert labgrid.reserved() == []


def test_power_and_console_are_the_exporters(
    tmp_path: Path, rig: Rig, boards: tuple[Labgrid, Path]
) -> None:
    labgrid, path = boards
    host = Host("alpha", tmp_path, rig, path)
    test = """
def test_power(hil):
    hil.run("touch /tmp/mark")
    hil.power.cycle()
    assert hil.power.read()
    assert not hil.run("test -e /tmp/mark", check=False).ok
"""
    # Raw, RFC 2217, and a tty of the exporter's through its ser2net.
    run = host.start(test, "--hil-target=rig2", "--hil-target=rig3", target="rig1")
    out, _ = run.communicate(timeout=PATIENCE * 2)
    assert run.returncode == 0, out
    assert "3 passed" in out
    labgrid.client("-p", "rig1-place", "acquire")
    run = host.start(test, target="rig1")
    out, _ = run.communicate(timeout=PATIENCE)
    assert "1 error" in out
    assert "rig1 is not free:" in out
    assert "rig1 (place rig1-place): " in out
    labgrid.client("-p", "rig1-place", "release")
    kick = """
import subprocess
def test_kicked(hil):
    hil.run("true")
    subprocess.run({command}, check=True)
"""
    command = json.dumps(labgrid.command("-p", "rig1-place", "release", "--kick"))
    run = host.start(kick.format(command=command), target="rig1")
    out, _ = run.communicate(timeout=PATIENCE)
    assert "1 passed, 1 error" in out
    assert "the lease of rig1 was lost: somebody released the place rig1-place" in out
    assert labgrid.held() == {}


def test_a_coordinator_that_ends_meanwhile(
    tmp_path: Path, rig: Rig, boards: tuple[Labgrid, Path]
) -> None:
    """The last test: the coordinator is killed, and so are the places."""
    labgrid, path = boards
    host = Host("alpha", tmp_path, rig, path)
    test = """
import pathlib, pytest

@pytest.mark.parametrize("number", range(3))
def test_it(hil, number):
    if number == 1:
        print("killme", flush=True)
        while not pathlib.Path("killed").exists():
            hil.run("sleep 0.1")
    hil.run("true")
"""
    run = host.start(test, target="rig1")
    assert run.stdout is not None
    for line in run.stdout:
        if "killme" in line:
            break
    labgrid.stop()
    (host.directory / "killed").touch()
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, out
    assert "3 passed" in out
    assert "Traceback" not in out, "its tests are through: that is no fault of theirs"
    left = [one for one in (host.directory / "lab").glob("*/*-hil-*") if not is_held(one)]
    assert len(left) == 1, "and the next run knows of it"
    run = host.start(test, target="rig1")
    out, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 1
    assert "3 errors" in out
    assert "infrastructure: labgrid's coordinator at" in out
