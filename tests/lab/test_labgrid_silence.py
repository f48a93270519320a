"""A coordinator that is not there, says nothing, or is something else; and who has left a name."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_hil.lab.labgrid_runs import Runs
from pytest_hil.lab.labgrid_session import Session
from pytest_hil.lab.registry import LabError


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


def address(listener: socket.socket) -> str:
    return f"127.0.0.1:{listener.getsockname()[1]}"


def test_nobody_is_there(listener: socket.socket) -> None:
    where = address(listener)
    listener.close()
    with pytest.raises(LabError, match=f"{where} cannot be reached: .*\n.*labgrid-coordinator run"):
        Session(where, "h/u")


def test_it_says_nothing(listener: socket.socket) -> None:
    began = time.monotonic()
    with pytest.raises(LabError, match=r"did not answer within 0\.5 s\n.*labgrid-client"):
        Session(address(listener), "h/u", connect=0.5)
    assert time.monotonic() - began < 20
    assert not [one for one in threading.enumerate() if one.name == "hil-labgrid"]


def test_it_is_something_else(listener: socket.socket) -> None:
    def answer() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.recv(4096)
            sock.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    with pytest.raises(LabError, match="cannot be reached"):
        Session(address(listener), "h/u")
    thread.join()


RUN = """
import sys, pathlib
from pytest_hil.lab.labgrid_runs import Runs
run, lock = Runs(pathlib.Path(sys.argv[1]), "host", "user").begin("there:1")
print(run.name, flush=True)
sys.stdin.read()
"""


def test_a_name_that_nobody_holds_is_of_a_dead_one(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "host", "user")
    with subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        name = child.stdout.readline().strip()
        assert name.startswith(f"host/user-hil-{child.pid}-")
        dead, alive = runs.others("there:1")
        assert (dead, [one.name for one in alive]) == ([], [name])
        assert runs.others("elsewhere:1") == ([], [])
        child.kill()
        child.wait()
        (one,), alive = runs.others("there:1")
        assert (one.name, one.pid, alive) == (name, child.pid, [])
        runs.forget(one)
        assert runs.others("there:1") == ([], [])


def test_a_word_that_was_never_written(tmp_path: Path) -> None:
    runs = Runs(tmp_path, "host", "user")
    run, lock = runs.begin("there:1")
    for text in ("", "{", '{"name": "host/x"}', "[]"):
        (run.path.parent / "user-hil-1-feed").write_text(text)
        dead, alive = runs.others("there:1")
        assert (dead, alive) == ([], [run])
        assert not (run.path.parent / "user-hil-1-feed").exists()
    lock.free()
