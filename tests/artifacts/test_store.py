"""A run's directory while it is written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pytest_hil import process
from pytest_hil.artifacts import index
from pytest_hil.artifacts.store import Run


def read(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text())
    assert isinstance(content, dict)
    return content


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / ".hil"


def test_a_run_is_there_at_once(root: Path) -> None:
    run = Run.create(root, argv=["pytest", "-x"], targets=["qemu"])
    facts = read(run.path / "run.json")
    assert facts["id"] == run.id == run.path.name
    assert (facts["argv"], facts["targets"]) == (["pytest", "-x"], ["qemu"])
    assert facts["status"] == "running"
    assert facts["pid"] == os.getpid()
    assert facts["pid_started"] == process.start_time(os.getpid())
    assert (root / ".gitignore").read_text() == "*\n"
    assert (root / "latest").resolve() == run.path.resolve()
    assert names(root) == {".gitignore", "latest", "runs"}
    run.update(workers=["gw0"])
    run.finish(exit_code=1)
    facts = read(run.path / "run.json")
    assert (facts["status"], facts["workers"], facts["exit_code"]) == ("finished", ["gw0"], 1)
    assert names(run.path) == {"run.json"}


def test_the_latest_is_the_latest(root: Path) -> None:
    made = [Run.create(root) for _ in range(3)]
    assert (root / "latest").resolve() == made[-1].path.resolve()
    assert [run.id for run in made] == sorted({run.id for run in made})


def test_runs_made_at_once_are_different(root: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        ids = {run.id for run in pool.map(lambda _: Run.create(root), range(40))}
    assert len(ids) == 40
    assert names(root / "runs") == ids


def test_a_directory_of_the_users_is_not_hidden_from_git(tmp_path: Path) -> None:
    Run.create(tmp_path)
    assert not (tmp_path / ".gitignore").exists()


def test_a_run_stays_where_it_is_when_the_working_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.create(Path(".hil"))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run.test("t.py::test", "qemu").events("boot")
    assert names(tmp_path / "elsewhere") == set()


def test_a_tests_directory_is_made_when_it_is_used(root: Path) -> None:
    run = Run.create(root)
    test = run.test("t.py::test", "qemu")
    assert not test.made
    assert names(run.path) == {"run.json"}
    test.events("boot", seconds=0.05)
    assert test.made
    assert read(test.path / "meta.json")["status"] == "running"


def test_a_test_from_begin_to_end(root: Path) -> None:
    run = Run.create(root)
    test = run.test("t.py::test[1]", "qemu", worker="gw1")
    test.events("clone", template="abc", path=Path("/x"))
    test.qmp({"execute": "cont"})
    test.update(machine="vm-1")
    test.finish("failed", duration=1.25, reason="assert 1 == 2")
    meta = read(test.path / "meta.json")
    assert meta["nodeid"] == "t.py::test[1]"
    assert (meta["target"], meta["worker"], meta["machine"]) == ("qemu", "gw1", "vm-1")
    assert (meta["status"], meta["outcome"], meta["duration"]) == ("finished", "failed", 1.25)
    assert meta["reason"] == "assert 1 == 2"
    (event,) = index.lines(test.path / "events.jsonl")
    assert (event["kind"], event["template"], event["path"]) == ("clone", "abc", "/x")
    assert 0 <= event["t"] < 60
    (message,) = index.lines(test.path / "qmp.jsonl")
    assert message["execute"] == "cont"
    assert names(test.path) == {"meta.json", "events.jsonl", "qmp.jsonl"}


def test_two_targets_and_two_tries_are_four_directories(root: Path) -> None:
    run = Run.create(root)
    paths = [run.test("t.py::test", target).path for target in ("qemu", "rpi4") for _ in range(2)]
    assert [path.name for path in paths] == [
        "t.py--test@qemu",
        "t.py--test@qemu.2",
        "t.py--test@rpi4",
        "t.py--test@rpi4.2",
    ]


def test_two_workers_never_share_a_directory(root: Path) -> None:
    path = Run.create(root).path
    workers = [Run(Path(str(path))) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        paths = set(pool.map(lambda run: run.test("t.py::test", "qemu").path, workers * 4))
    assert len(paths) == 32


def test_only_the_owner_writes_run_json(root: Path) -> None:
    run = Run.create(root, argv=["pytest"])
    with pytest.raises(RuntimeError, match="only the process that made"):
        Run(run.path).finish()
    assert read(run.path / "run.json")["argv"] == ["pytest"]


def test_lines_of_many_threads_do_not_mix(root: Path) -> None:
    test = Run.create(root).test("t.py::test", "qemu")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: test.events("e", n=n, text="x" * 5000), range(200)))
    assert {event["n"] for event in index.lines(test.path / "events.jsonl")} == set(range(200))


def test_an_events_own_words_are_not_overwritten(root: Path) -> None:
    test = Run.create(root).test("t.py::test", "qemu")
    with pytest.raises(ValueError, match=r"cannot be named t$"):
        test.events("boot", t=1)


def test_a_root_that_cannot_be_made_is_said_once_and_the_tests_go_on(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    run = Run.create(tmp_path / "file" / ".hil", on_trouble=said.append)
    test = run.test("t.py::test", "qemu")
    test.events("boot")
    test.qmp({})
    test.finish("passed")
    run.finish()
    assert len(said) == 1
    assert said[0].startswith("the artifacts of this run are incomplete: Not a directory: ")
    assert run.error is not None
    assert run.error.errno == errno.ENOTDIR


def test_a_full_disk_is_said_once_and_leaves_nothing_half(root: Path) -> None:
    """A file-size limit stands for the full disk: the same failing write, without root."""
    child = """
import resource, signal, sys
from pathlib import Path
from pytest_hil.artifacts.store import Run
run = Run.create(Path(sys.argv[1]), on_trouble=print)
test = run.test("t.py::test", "qemu")
test.events("before")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 10000))
test.events("after", text="x" * 200)
test.finish("passed")
run.finish()
resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
test.events("room again")
"""
    said = run_child(child, root)
    assert said.count("incomplete: File too large") == 1
    (run,) = index.runs(root)
    (test,) = run.tests()
    # The last state that could be written, not half of the next one.
    assert (run.facts["status"], test.meta["status"]) == ("running", "running")
    kinds = [event["kind"] for event in index.lines(test.path / "events.jsonl")]
    assert kinds == ["before", "room again"]
    assert len((test.path / "events.jsonl").read_bytes().splitlines()[1]) < 100  # a part of "after"
    assert not [name for name in names(test.path) | names(run.path) if name.startswith(".")]


def test_a_killed_run_is_there_and_is_seen_to_be_interrupted(root: Path) -> None:
    child = """
import os, signal, sys
from pathlib import Path
from pytest_hil.artifacts.store import Run
run = Run.create(Path(sys.argv[1]))
run.test("t.py::first", "qemu").finish("passed")
run.test("t.py::second", "qemu").events("boot")
os.kill(os.getpid(), signal.SIGKILL)
"""
    run_child(child, root, exit_code=-signal.SIGKILL)
    (run,) = index.runs(root)
    assert run.status == "interrupted"
    assert not run.alive
    told = {test.nodeid: (test.status, test.outcome) for test in run.tests()}
    assert told == {"t.py::first": ("finished", "passed"), "t.py::second": ("interrupted", None)}


def run_child(code: str, argument: Path, *, exit_code: int = 0) -> str:
    done = subprocess.run(
        # -B: a limit on the size of files would cut a module's bytecode short, for all others too.
        [sys.executable, "-B", "-c", code, str(argument)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == exit_code, done.stderr
    return done.stdout
