"""Children: how they start, end, and die with us."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from pytest_hil import process
from pytest_hil.errors import ProcessFailed, ToolMissing


def test_a_missing_program_says_what_to_install() -> None:
    with pytest.raises(ToolMissing, match="apt-get install nosuch-package"):
        process.find("nosuch-program", package="nosuch-package")


def test_run_gives_what_was_said() -> None:
    done = process.run(["sh", "-c", "cat; echo err >&2"], input=b"in")
    assert (done.stdout, done.stderr) == (b"in", b"err\n")


def test_a_failure_carries_command_and_output() -> None:
    with pytest.raises(ProcessFailed, match=r"(?s)exit code 3.*why.*command: sh -c") as caught:
        process.run(["sh", "-c", "echo why >&2; exit 3"])
    assert caught.value.exit_code == 3


def test_a_slow_one_is_killed() -> None:
    began = time.monotonic()
    with pytest.raises(ProcessFailed, match=r"did not end within 0.2 s"):
        process.run(["sleep", "100"], timeout=0.2)
    assert time.monotonic() - began < 5


def test_wait_with_a_time_limit() -> None:
    with process.start(["sleep", "100"]) as child:
        assert child.wait(0.05) is None
        child.kill()
        assert child.wait(5) == -signal.SIGKILL


def test_a_polite_end_comes_first() -> None:
    script = "trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done"
    child = process.start(["sh", "-c", script], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    assert child.end(grace=5) == 7


def test_children_of_a_thread_outlive_it() -> None:
    """The kernel's signal is sent when the thread that made the child ends."""
    started: list[process.Process] = []
    thread = threading.Thread(target=lambda: started.append(process.start(["sleep", "100"])))
    thread.start()
    thread.join()
    with started[0] as child:
        assert child.wait(0.2) is None


def test_children_die_with_us() -> None:
    script = (
        "import sys; sys.path[:] = %r; from pytest_hil import process\n"
        "child = process.start(['sleep', '100']); print(child.pid, flush=True); child.wait()"
    )
    parent = subprocess.Popen([sys.executable, "-c", script % sys.path], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    # It must have become what it is told to be: until then it is still setpriv.
    deadline = time.monotonic() + 5
    while Path(f"/proc/{pid}/comm").read_text() != "sleep\n" and time.monotonic() < deadline:
        pass
    parent.kill()
    parent.communicate()
    assert process.wait_for_pid(pid, 5)


def test_a_pid_and_its_start_time_name_a_process() -> None:
    me = process.start_time(os.getpid())
    assert me is not None
    assert process.start_time(2**22 + 1) is None
    with process.start(["sleep", "100"]) as child:
        started = process.start_time(child.pid)
        assert started is not None
        process.kill_pid(child.pid, started=started + 1)
        assert child.exit_code is None
        process.kill_pid(child.pid, started=started)
        assert child.wait(5) == -signal.SIGKILL
        assert process.start_time(child.pid) is None


def test_an_interrupt_while_a_child_is_made_leaves_no_child() -> None:
    gate = threading.Event()
    process._spawn_thread().submit(gate.wait)  # it can be made only when this ends
    mark = f"{os.getpid()}.9"
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        process.start(["sleep", mark])
    gate.set()
    process._spawn_thread().submit(int).result()  # by now it was made, and ended
    running = [path.read_bytes() for path in Path("/proc").glob(f"{os.getpid()}/task/*/children")]
    lines = [
        Path(f"/proc/{pid}/cmdline").read_bytes() for pid in b" ".join(running).decode().split()
    ]
    assert not any(mark.encode() in line for line in lines)
