"""Leases between processes that are killed. What proves that a holder is alone is not ours."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pytest_hil.lab.lease import Lab, Lease

Start = Callable[..., "subprocess.Popen[str]"]
Queued = Callable[[int], None]

HOLD = """
import sys
from pathlib import Path
from pytest_hil.lab.lease import Lab
lease = Lab(Path(sys.argv[1])).acquire(sys.argv[2:], run="child", purpose="a test", wait=60)
print(lease.board, flush=True)
sys.stdin.read()
"""

HOLD_AND_FORK = """
import os, signal, sys
from pathlib import Path
from pytest_hil.lab.lease import Lab
lease = Lab(Path(sys.argv[1])).acquire(["a"], run="child", purpose="a test")
child = os.fork()
if child == 0:
    signal.pause()
print(child, flush=True)
sys.stdin.read()
"""

# Takes boards again and again, and writes down when. A name in the abstract namespace of UNIX
# sockets is the kernel's, which gives it to one process at a time: a second one would fail.
WORK = """
import os, random, socket, sys, time
from pathlib import Path
from pytest_hil.lab.lease import Lab

directory, seconds, log, *boards = sys.argv[1:]
lab, chance = Lab(Path(directory)), random.Random(os.getpid())
log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def write(what, board):
    os.write(log, f"{what} {board} {os.getpid()} {time.monotonic_ns()}\\n".encode())

def bind(name):
    # Of a killed process the kernel frees the lock and the name one after the other.
    deadline = time.monotonic() + 1
    while True:
        alone = socket.socket(socket.AF_UNIX)
        try:
            alone.bind(name)
            return alone
        except OSError:
            alone.close()
            if time.monotonic() > deadline:
                raise

until = time.monotonic() + float(seconds)
while time.monotonic() < until:
    wanted = chance.sample(boards, chance.randint(1, len(boards)))
    priority = chance.randint(-10, 10)
    with lab.acquire(wanted, run="w", purpose="work", priority=priority, wait=60) as lease:
        write("begin", lease.board)
        alone = bind(f"\\0{directory}/{lease.board}")
        time.sleep(chance.random() * 0.03)
        alone.close()
        write("end", lease.board)
"""

# Waits once for each line that it is told: a number and a priority.
WAIT = """
import os, sys, threading
from pathlib import Path
from pytest_hil.lab.lease import Lab

lab = Lab(Path(sys.argv[1]))
log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def wait(number, priority):
    with lab.acquire(["a"], run=number, purpose="wait", priority=int(priority), wait=100):
        os.write(log, f"{number}\\n".encode())

threads = []
for line in sys.stdin:
    threads.append(threading.Thread(target=wait, args=line.split()))
    threads[-1].start()
for thread in threads:
    thread.join()
"""


def said(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)


def test_a_killed_holder_has_nothing(lab: Lab, start: Start, queued: Queued) -> None:
    """Who waits has the board at once, again and again."""
    children = [start(HOLD, "a") for _ in range(6)]
    got = [child for child in children if child.poll() is None]
    queued(len(children) - 1)
    late = []
    for rest in range(len(children) - 1, 0, -1):
        holder = lab.status(["a"])[0].holder
        assert holder is not None
        (now,) = [child for child in got if child.pid == holder.pid]
        got.remove(now)
        began = time.monotonic()
        kill(now)
        queued(rest - 1)
        late.append(time.monotonic() - began)
        assert [one.what for one in lab.history(2)] == ["lost", "taken"]
    assert max(late) < 1, late


def test_many_die_at_once(lab: Lab, start: Start, queued: Queued) -> None:
    """The holder, and all who wait but the last one."""
    children = []
    for place in range(8):
        children.append(start(HOLD, "a"))
        if place == 0:
            assert said(children[0]) == "a"
        queued(place)
    began = time.monotonic()
    for child in children[:-1]:
        kill(child)
    assert said(children[-1]) == "a"
    assert time.monotonic() - began < 1
    assert lab.queue() == []
    assert len(list((lab.directory / "bells").iterdir())) == 0


def test_a_killed_holders_child_keeps_nothing(lab: Lab, start: Start) -> None:
    holder = start(HOLD_AND_FORK)
    child = int(said(holder))
    try:
        kill(holder)
        began = time.monotonic()
        with lab.acquire(["a"], run="x", purpose="x", wait=20):
            assert time.monotonic() - began < 1
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_killed_waiter_is_in_nobodys_way(lab: Lab, start: Start, queued: Queued) -> None:
    holder = lab.acquire(["a"], run="x", purpose="x")
    waiter = start(HOLD, "a")
    queued(1)
    kill(waiter)
    waiter.wait()
    holder.release()
    lab.acquire(["a"], run="x", purpose="x").release()


def test_a_stopped_waiter_gets_its_turn(lab: Lab, start: Start, queued: Queued) -> None:
    """The board is its own as soon as it goes on; who is behind it waits for it."""
    holder = lab.acquire(["a"], run="x", purpose="x")
    first, second = start(HOLD, "a"), None
    queued(1)
    first.send_signal(signal.SIGSTOP)
    second = start(HOLD, "a")
    queued(2)
    holder.release()
    assert [one.who.pid for one in lab.queue()] == [first.pid, second.pid]
    kill(first)
    assert said(second) == "a"


def test_fifty_wait(lab: Lab, start: Start, queued: Queued, tmp_path: Path) -> None:
    """Ten processes with five threads each: by priority, and in each in the order they came."""
    log = tmp_path / "log"
    log.touch()
    chance = random.Random(2)
    holder = lab.acquire(["a"], run="x", purpose="x")
    children = [start(WAIT, str(log)) for _ in range(10)]
    asked = []
    for number in range(50):
        priority = chance.choice((-5, 0, 0, 5))
        asked.append((-priority, number))
        child = children[number % len(children)]
        assert child.stdin is not None
        child.stdin.write(f"{number} {priority}\n")
        child.stdin.flush()
        queued(number + 1)
    holder.release()
    for child in children:
        child.communicate(timeout=60)
    assert [int(line) for line in log.read_text().split()] == [
        number for _, number in sorted(asked)
    ]


def test_two_never_hold_one_board(lab: Lab, start: Start, tmp_path: Path) -> None:
    log, boards, seconds = tmp_path / "log", ("a", "b", "c"), 8.0
    chance = random.Random(1)
    until = time.monotonic() + seconds
    killed: dict[int, int] = {}
    workers = [start(WORK, str(seconds), str(log), *boards) for _ in range(8)]
    ended: list[subprocess.Popen[str]] = []
    while (left := until - time.monotonic()) > 0:
        time.sleep(chance.random() * 0.2)
        if left > 1:
            victim = workers.pop(chance.randrange(len(workers)))
            killed[victim.pid] = time.monotonic_ns()
            kill(victim)
            ended.append(victim)
            workers.append(start(WORK, str(left), str(log), *boards))
    for worker in workers:
        worker.communicate(timeout=60)
        assert worker.returncode == 0
    for worker in ended:
        worker.communicate(timeout=60)
        # 1: its bind() failed, so somebody else had the board.
        assert worker.returncode == -signal.SIGKILL
    held = overlaps(log.read_text().splitlines(), killed)
    assert held > 50
    leases: list[Lease] = [lab.acquire(boards, run="x", purpose="x") for _ in boards]
    assert sorted(one.board for one in leases) == list(boards)
    for one in leases:
        one.release()


def overlaps(lines: Sequence[str], killed: dict[int, int]) -> int:
    """AssertionError when two had a board at once; how often one was held."""
    has: dict[str, int] = {}
    held = 0
    for line in lines:
        what, board, pid, at = line.split()
        before = has.pop(board, None)
        if what == "end":
            assert before == int(pid), line
            continue
        held += 1
        if before is not None:
            assert int(at) >= killed[before], f"{line}: {before} had it"
        has[board] = int(pid)
    assert set(has.values()) <= set(killed)
    return held


def test_the_proof_proves_something() -> None:
    """Two who bind one name, and logs of two who have one board: both are seen."""
    with socket.socket(socket.AF_UNIX) as one, socket.socket(socket.AF_UNIX) as two:
        one.bind(f"\0hil-{os.getpid()}")
        with pytest.raises(OSError, match="in use"):
            two.bind(f"\0hil-{os.getpid()}")
    assert overlaps(["begin a 1 10", "end a 1 20", "begin a 2 30", "end a 2 40"], {}) == 2
    assert overlaps(["begin a 1 10", "begin a 2 30", "end a 2 40"], {1: 25}) == 2
    with pytest.raises(AssertionError, match="1 had it"):
        overlaps(["begin a 1 10", "begin a 2 30"], {1: 35})
    with pytest.raises(KeyError):
        overlaps(["begin a 1 10", "begin a 2 30", "end a 2 40"], {})
