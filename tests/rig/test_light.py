"""Light boards, their power switch and their faults, from outside."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_hil.board.console.open import open_console
from pytest_hil.board.station import Station
from pytest_hil.config import load
from pytest_hil.config.board import BoardTarget
from pytest_hil.errors import ConfigError
from pytest_hil.rig.rig import Rig

Connect = Callable[..., Any]
Http = Callable[..., Any]


def marked(token: str) -> list[int]:
    """Processes that have this word on their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and token in (entry / "cmdline").read_text().split("\0"):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def refused(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


# --- boot, login, shell ---


def test_boots_logs_in_and_runs(rig: Rig, connect: Connect, http: Http) -> None:
    line = connect(rig.board(2))
    began = time.monotonic()
    assert http("/cm", cmnd="Power2 On") == {"POWER2": "ON"}
    said = line.until(rb"rig2 login: $")
    assert time.monotonic() - began < 1
    # From the very first byte.
    assert said.startswith(b"rig2: power on")
    assert b"U-Boot" not in said
    line.type("root")
    line.until(rb"Password: $")
    line.type("wrong")
    assert b"wrong" not in line.until(rb"Login incorrect\r\n")
    line.log_in()
    line.type("uname -m; echo $((6 * 7)); tty")
    assert os.uname().machine.encode() in line.until(rb"\r\n42\r\n/dev/\S+\r\n")
    line.type("env | sort")
    environment = line.until(rb"\nUSER=root\r\n").decode()
    assert "PYTEST_CURRENT_TEST" in os.environ
    assert "PYTEST" not in environment


def test_ctrl_c_ends_a_command(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    line.type("sleep 77.1828; echo not''reached")
    while not marked("77.1828"):
        time.sleep(0.01)
    line.socket.sendall(b"\x03")
    line.until(rb"# ")
    line.type("echo al''ive")
    assert b"notreached" not in line.until(rb"alive\r\n")


def test_logging_out_leads_to_a_login(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    line.type("exit")
    assert b"power on" not in line.until(rb"rig1 login: $")
    line.log_in(asked=True)


# --- power ---


def test_power_off_is_silence_and_keeps_the_connection(
    rig: Rig, connect: Connect, http: Http
) -> None:
    board = rig.board(1)
    line = connect(board)
    http("/cm", cmnd="Power1 1")
    line.log_in()
    line.type("while :; do echo noise; done")
    line.until(rb"noise\r\nnoise\r\n")
    assert http("/cm", cmnd="Power1 Off") == {"POWER1": "OFF"}
    line.silent(0.05)  # what was on its way
    line.type("echo anybody")
    assert line.silent(0.2) == b""
    http("/cm", cmnd="Power1 On")
    assert line.until(rb"login: $").startswith(b"rig1: power on")
    assert board.record.count("begin") == 1
    assert board.record.count("end") == 0


def test_power_off_kills_all_that_runs_on_it(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    seconds = ["81.2718", "81.2719", "81.2720"]
    line.type(f"sleep {seconds[0]} &")
    line.type(f"setsid sleep {seconds[1]} &")
    line.type(f"(trap '' HUP INT TERM; env -i sleep {seconds[2]}) &")
    line.type("echo; echo do''ne")
    line.until(rb"done\r\n")
    deadline = time.monotonic() + 30
    while not all(map(marked, seconds)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert all(map(marked, seconds))
    board.power(False)
    assert [marked(one) for one in seconds] == [[], [], []]


def test_files_are_gone_after_a_power_cycle(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    line.type("echo kept >file; cat file")
    line.until(rb"\nkept\r\n")
    board.power(False)
    board.power(True)
    line.log_in()
    line.type("cat file || echo lo''st")
    line.until(rb"\nlost\r\n")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("Power3", {"POWER3": "OFF"}),
        ("Power", {"POWER1": "OFF"}),
        ("power2 ON", {"POWER2": "ON"}),
        ("POWER2 toggle", {"POWER2": "ON"}),
        ("Power0 1", {"POWER1": "ON", "POWER2": "ON", "POWER3": "ON"}),
        ("Power4 On", {"Command": "Error"}),
        ("Powerr On", {"Command": "Unknown"}),
        ("", {"Command": "Unknown"}),
        ("State", {"POWER1": "OFF", "POWER2": "OFF", "POWER3": "OFF"}),
        ("Power1 blah", {"POWER1": "OFF"}),
    ],
)
def test_the_switch_speaks_tasmota(
    http: Http, rig: Rig, command: str, answer: dict[str, str]
) -> None:
    assert http("/cm", cmnd=command) == answer
    on = [f"POWER{board.number}" for board in rig.boards if board.powered]
    assert on == [name for name, state in answer.items() if state == "ON"]


def test_a_single_relay_has_no_number() -> None:
    with Rig(boards=1) as rig:
        assert rig.switchboard.command("Power1 On") == {"POWER": "ON"}


# --- one at a time ---


def test_a_second_connection_is_refused_and_written_down(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    first = connect(board)
    board.power(True)
    first.until(rb"login: $")
    second = connect(board)
    assert second.ended()
    assert second.said == b"Port already in use\r\n"
    first.log_in(asked=True)  # is not disturbed
    (violation,) = board.record.violations
    own = first.socket.getsockname()
    other = second.socket.getsockname()
    assert violation.peer == f"127.0.0.1:{other[1]}"
    assert violation.detail == f"127.0.0.1:{own[1]} was connected"


def test_one_after_the_other_is_no_violation(rig: Rig) -> None:
    """However close they follow: what counts is what the kernel knows."""
    board = rig.board(1)
    host, _, port = board.outside.console["address"].rpartition(":")
    for _ in range(300):
        socket.create_connection((host, int(port)), timeout=5).close()
    assert board.record.wait(lambda events: _count(events, "end") == 300, timeout=10)
    assert board.record.violations == ()
    times = [event.clock for event in board.record.events]
    assert times == sorted(times)


def _count(events: Any, what: str) -> int:
    return sum(event.what == what for event in events)


@pytest.mark.parametrize("serial", ["tcp", "unix", "pty", "rfc2217"])
def test_boards_toml_leads_to_the_console(serial: Any) -> None:
    with Rig(boards=2, serial=serial) as rig:
        board = rig.board(2)
        target = load(rig.boards_toml, root=rig.directory).targets["rig2"]
        assert isinstance(target, BoardTarget)
        for _ in range(2):
            console = open_console(target.console, name="rig2")
            try:
                board.power(True)
                console.expect("rig2: power on", timeout=10)
                console.expect("login: ", timeout=10)
                console.send("root\r")
                console.expect("Password: ", timeout=10)
                console.send("hil\r")
                console.expect("# ", timeout=10)
                console.send("head -c 20000 /dev/zero | tr '\\0' x; echo\r")
                console.expect("x{20000}\n", timeout=10)
                board.power(False)
            finally:
                console.close()
        assert board.record.wait(lambda events: _count(events, "end") == 2, timeout=5)
        assert board.record.violations == ()


def test_all_bytes_pass_rfc2217() -> None:
    serial = pytest.importorskip("serial")
    with Rig(boards=1, serial="rfc2217") as rig:
        board = rig.board(1)
        with serial.serial_for_url(board.outside.console["port"], timeout=5) as port:
            board.power(True)
            port.read_until(b"login: ")
            port.write(b"root\r")
            port.read_until(b"word: ")
            port.write(b"hil\r")
            port.read_until(b"# ")
            port.write(b"stty raw -echo; head -c 256 | od -An -v -tx1 -w256 | tr -d ' '\r")
            port.read_until(b"' '\r\n")
            time.sleep(0.2)  # until its tty is raw
            every = bytes(range(256))
            port.write(every)
            assert every.hex().encode() in port.read_until(b"ff\n")


def test_a_second_opener_of_a_tty_is_written_down() -> None:
    with Rig(boards=1, serial="pty") as rig:
        board = rig.board(1)
        path = board.outside.console["port"]
        fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
        try:
            assert board.record.wait(lambda events: _count(events, "begin") == 1, timeout=5)
            program = f"import os; os.open({path!r}, os.O_RDWR | os.O_NOCTTY); input()"
            with subprocess.Popen(
                [sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True
            ) as other:
                assert board.record.wait(lambda events: _count(events, "violation") > 0, timeout=5)
                other.communicate(b"\n")
            assert f"process {other.pid} " in board.record.violations[0].peer
        finally:
            os.close(fd)
        assert board.record.wait(lambda events: _count(events, "end") == 1, timeout=5)


# --- faults ---


def test_the_adapter_vanishes_and_comes_back(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(3)
    line = connect(board)
    board.power(True)
    line.log_in()
    line.type("echo $((4000 + 711)); sleep 0.1")
    line.until(rb"4711\r\n")
    http("/fault", board=3, kind="adapter-vanishes", seconds=0.3)
    assert line.ended()
    assert refused(board.outside.console["address"])
    again = None
    deadline = time.monotonic() + 5
    while again is None and time.monotonic() < deadline:
        try:
            again = connect(board)
        except ConnectionRefusedError:
            time.sleep(0.02)
    assert again is not None
    # The board itself did not notice.
    again.type("echo $((4000 + 712))")
    again.until(rb"4712\r\n")
    assert [e.what for e in board.record.events] == ["begin", "on", "fault", "end", "begin"]


def test_a_tty_vanishes_with_its_name() -> None:
    with Rig(boards=1, serial="pty") as rig:
        board = rig.board(1)
        link = Path(board.outside.console["port"])
        fd = os.open(link, os.O_RDWR | os.O_NOCTTY)
        try:
            board.fault("adapter-vanishes", seconds=0.3)
            assert not os.path.lexists(link)
            assert os.read(fd, 1) == b""  # hung up
        finally:
            os.close(fd)
        deadline = time.monotonic() + 5
        while not link.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert link.is_char_device()


def test_garbage(rig: Rig, connect: Connect, http: Http) -> None:
    line = connect(rig.board(1))
    rig.board(1).power(True)
    line.until(rb"login: $")
    http("/fault", board="rig1", kind="garbage", count=200, seed=5)
    line.until(re.escape(random.Random(5).randbytes(200)))


def test_lost_bytes_are_the_same_for_a_seed(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    line.type("stty -echo -opost; PS1=; exec cat")
    line.silent(0.2)
    text = b"0123456789" * 300 + b"\n"
    got = []
    for _ in range(2):
        http("/fault", board=1, kind="lost-bytes", rate=0.1, seed=9)
        line.socket.sendall(text[:3000].replace(b"9", b"9\r"))
        got.append(line.silent(0.5))
        http("/fault", board=1, kind="none")
    chance = random.Random(9)
    whole = b"0123456789\n" * 300
    assert got[0] == bytes(byte for byte in whole if chance.random() >= 0.1)
    assert got[1] == got[0]
    line.socket.sendall(b"whole again\r")
    line.until(rb"whole again\n")


def test_a_stuck_relay(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(2)
    line = connect(board)
    board.power(True)
    line.until(rb"login: $")
    http("/fault", board=2, kind="stuck-relay")
    assert http("/cm", cmnd="Power2 Off") == {"POWER2": "ON"}
    http("/fault", board=2, kind="stuck-relay", lies=1)
    assert http("/cm", cmnd="Power2 Off") == {"POWER2": "OFF"}
    assert board.powered
    line.type("root")
    line.until(rb"Password: $")
    http("/fault", board=2, kind="none")
    assert not board.powered


def test_a_boot_loop(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(1)
    line = connect(board)
    http("/fault", board=1, kind="boot-loop", seconds=0.3)
    board.power(True)
    for _ in range(4):
        line.until(rb"rig1: power on")
    assert board.record.count("reset") >= 3
    http("/fault", board=1, kind="none")
    line.silent(0.1)
    count = board.record.count("reset")
    assert line.silent(0.6) == b""
    assert board.record.count("reset") == count


def test_a_boot_loop_is_no_longer_when_it_is_off(rig: Rig, connect: Connect) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    board.fault("boot-loop", seconds=0.2)
    board.power(False)
    line.silent(0.05)
    assert line.silent(0.4) == b""
    assert not board.powered


def test_a_brown_out(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.log_in()
    http("/fault", board=1, kind="brown-out", seconds=0.2)
    line.type("echo still''here")
    line.until(rb"stillhere\r\n")
    line.until(rb"rig1: power on")
    line.until(rb"login: $")
    assert board.record.count("reset") == 1


def test_a_dead_board(rig: Rig, connect: Connect, http: Http) -> None:
    board = rig.board(1)
    line = connect(board)
    board.power(True)
    line.until(rb"login: $")
    http("/fault", board=1, kind="dead")
    http("/cm", cmnd="Power1 Off")
    assert http("/cm", cmnd="Power1 On") == {"POWER1": "ON"}
    line.type("")
    assert line.silent(0.3) == b""
    http("/fault", board=1, kind="none")
    line.until(rb"rig1: power on")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"board": 9, "kind": "dead"}, "there is no '9'"),
        ({"board": 1, "kind": "ded"}, "did you mean 'dead'"),
        ({"board": 1, "kind": "garbage", "cont": 1}, "did you mean 'count'"),
        ({"board": 1, "kind": "lost-bytes", "rate": 2}, "out of range"),
        ({"board": 1, "kind": "lost-bytes", "rate": "much"}, "is no number"),
        ({"board": 1, "kind": "lost-bytes", "rate": "nan"}, "out of range"),
    ],
)
def test_a_wrong_fault_is_refused(http: Any, query: dict[str, object], said: str) -> None:
    status, answer = http.get("/fault", **query)
    assert status == 400
    assert said in answer["error"]


# --- the whole ---


def test_eight_boards_at_once() -> None:
    with Rig(boards=8) as rig:
        lines = []
        for board in rig.boards:
            host, _, port = board.outside.console["address"].rpartition(":")
            lines.append(socket.create_connection((host, int(port)), timeout=10))
        rig.switchboard.command("Power0 On")
        for number, line in enumerate(lines, 1):
            said = b""
            while not said.endswith(b"login: "):
                said += line.recv(4096)
            assert f"rig{number} login: ".encode() in said
            line.close()


def test_nothing_is_left(connect: Connect) -> None:
    rig = Rig(boards=2, serial=["tcp", "pty"])
    board = rig.board(1)
    line = connect(board)
    rig.switchboard.command("Power0 On")
    line.log_in()
    line.type("sleep 93.1415 & echo do''ne")
    line.until(rb"done\r\n")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    address, url = board.outside.console["address"], rig.switchboard.url
    rig.close()
    rig.close()
    assert marked("93.1415") == []
    assert line.ended()
    assert refused(address)
    assert refused(url.removeprefix("http://"))
    assert not rig.directory.exists()
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors


def test_a_directory_of_the_users_keeps_the_records(tmp_path: Path) -> None:
    with Rig(boards=1, directory=tmp_path / "here") as rig:
        rig.board(1).power(True)
        table = tomllib.loads(rig.boards_toml.read_text())["target"]["rig1"]
        assert table["power"]["relay"] == 1
        assert table["boot"][0]["driver"] == "login"
        assert rig.environment == {"HIL_RIG_PASSWORD": "hil"}
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["here", "here/rig1", "here/rig1/events.jsonl"]
    assert '"what": "on"' in (tmp_path / "here/rig1/events.jsonl").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"boards": 0}, "1 to 64"),
        ({"kinds": ["ligth"]}, "did you mean 'light'"),
        ({"kinds": []}, "none is given"),
        ({"serial": "tpc"}, "did you mean 'tcp'"),
    ],
)
def test_a_wrong_rig_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Rig(**arguments)


PROGRAM = """
from pytest_hil.rig.rig import Rig
rig = Rig(boards=1)
rig.board(1).power(True)
print(rig.board(1)._leader.pid, flush=True)
input()
"""


def test_shells_die_with_a_rig_that_is_killed() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as rig:
        assert rig.stdout is not None
        shell = int(rig.stdout.readline())
        watch = os.pidfd_open(shell)
        rig.send_signal(signal.SIGKILL)
    import select

    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(5000)
    os.close(watch)


def test_a_station_drives_it_by_boards_toml(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Console, Tasmota, login and serial shell as `pytest --hil-target=rig2` has them."""
    for name, value in rig.environment.items():
        monkeypatch.setenv(name, value)
    target = load(rig.boards_toml, root=rig.directory).targets["rig2"]
    assert isinstance(target, BoardTarget)
    station = Station(target)
    try:
        station.boot()
        assert station.is_on()
        done = station.shell("run").run("echo $((6 * 7)); pwd; exit 3", check=False)
        assert (done.stdout.split()[0], done.exit_code) == ("42", 3)
        home = Path(done.stdout.split()[1])
        own = home == Path("/tmp")
        assert own or home == rig.directory / "rig2" / "home"
        assert own or os.getuid() != 0
        # What the cut leaves behind is nothing of this host's.
        assert not own or list((rig.directory / "rig2" / "home").glob(".hil-*"))
        station.off()
        assert not rig.board(2).powered
    finally:
        station.close()
