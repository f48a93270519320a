"""Reading what is on disk, also when it is half written or strange."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pytest_hil import process
from pytest_hil.artifacts import index
from pytest_hil.artifacts.store import Run
from pytest_hil.errors import ConfigError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / ".hil"


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_nothing_is_an_empty_list(root: Path) -> None:
    assert index.runs(root) == []
    with pytest.raises(ConfigError, match="there are no runs here"):
        index.find_run(root)


def test_runs_newest_first_and_their_tests_in_order(root: Path) -> None:
    old, new = Run.create(root, argv=["old"]), Run.create(root, argv=["new"], targets=["qemu"])
    for name in ("b", "a"):
        test = new.test(f"t.py::{name}", "qemu")
        test.update(start=f"2026-01-01T00:00:0{'ba'.index(name)}.000+00:00")
    old.finish()
    runs = index.runs(root)
    assert [run.id for run in runs] == [new.id, old.id]
    assert [run.status for run in runs] == ["running", "finished"]
    assert runs[0].argv == ("new",)
    assert runs[0].targets == ("qemu",)
    assert [test.nodeid for test in runs[0].tests()] == ["t.py::b", "t.py::a"]


def test_an_owner_is_a_pid_and_its_start_time(root: Path) -> None:
    me = {"status": "running", "pid": os.getpid()}
    started = process.start_time(os.getpid())
    assert started is not None
    write(root / "runs/1/run.json", {**me, "pid_started": started})
    write(root / "runs/2/run.json", {**me, "pid_started": started + 1})  # the pid was used again
    write(root / "runs/3/run.json", me)
    assert [run.status for run in index.runs(root)] == ["interrupted", "interrupted", "running"]


def test_a_run_is_alive_while_a_worker_is(root: Path) -> None:
    write(root / "runs/1/run.json", {"status": "running", "pid": 0, "pid_started": 0})
    assert not index.find_run(root).alive
    Run(root / "runs/1").test("t.py::test", "qemu").events("boot")
    run = index.find_run(root)
    assert run.status == "interrupted"
    assert run.alive


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '"x"', '{"argv": 7, "start": null}', "\x00\xff"]
)
def test_strange_files_are_read_as_far_as_they_go(root: Path, content: str) -> None:
    for name in ("run.json", "t/meta.json", "t/events.jsonl"):
        path = root / "runs/1" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (root / "runs/file").touch()
    (run,) = index.runs(root)
    assert run.status == "interrupted"
    assert run.argv == ()
    (test,) = run.tests()
    assert (test.nodeid, test.status, test.duration) == ("t", "interrupted", None)
    assert len(list(index.lines(test.path / "events.jsonl"))) == content.count("argv")


def test_a_half_written_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b'{"n": 1}\nnot json\n{"n": 2}\n{"n": 3, "te')
    assert [line["n"] for line in index.lines(path)] == [1, 2]
    assert list(index.lines(tmp_path / "absent.jsonl")) == []


def test_a_run_is_found_by_the_beginning_of_its_id(root: Path) -> None:
    for name in ("2026-01-01T00-00-00-aaa", "2026-01-01T00-00-00-aab", "2026-01-02T00-00-00-aaa"):
        write(root / "runs" / name / "run.json", {})
    assert index.find_run(root).id == "2026-01-02T00-00-00-aaa"
    assert index.find_run(root, "2026-01-02").id == "2026-01-02T00-00-00-aaa"
    assert index.find_run(root, "2026-01-01T00-00-00-aab").id == "2026-01-01T00-00-00-aab"
    with pytest.raises(ConfigError, match="2 runs begin with '2026-01-01'"):
        index.find_run(root, "2026-01-01")
    with pytest.raises(ConfigError, match="there is no run '2025'"):
        index.find_run(root, "2025")


def test_a_test_is_found_by_its_name_or_a_part(root: Path) -> None:
    run = Run.create(root)
    for nodeid, target in (("t.py::one", "a"), ("t.py::one", "b"), ("t.py::one_more", "a")):
        run.test(nodeid, target).events("boot")
    record = index.find_run(root)

    def found(wanted: str) -> list[str]:
        return [test.path.name for test in index.find_tests(record, wanted)]

    assert found("t.py::one") == ["t.py--one@a", "t.py--one@b"]
    assert found("t.py::one@b") == ["t.py--one@b"]
    assert found("t.py--one@b") == ["t.py--one@b"]
    assert found("more") == ["t.py--one_more@a"]
    assert found("two") == []
