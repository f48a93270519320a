"""``pytest-hil watch`` on a run that goes on, and on one that was killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.artifacts.store import Run
from pytest_hil.cli.main import main


def watch(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest_hil.cli.main", "watch", "--artifacts", str(root)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_run_that_goes_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / ".hil", targets=["qemu"])
    run.update(collected=3)
    with watch(tmp_path / ".hil") as watching:
        assert watching.stdout is not None
        run.result(nodeid="t.py::test_a", outcome="passed", worker="gw0", target="qemu")
        assert watching.stdout.readline() == "passed gw0 qemu t.py::test_a\n"
        run.result(
            nodeid="t.py::test_b",
            outcome="failed",
            target="qemu",
            reason="crash: BUG\x1b[2J in foo",
        )
        assert watching.stdout.readline() == "failed - qemu t.py::test_b: crash: BUG␛[2J in foo\n"
        run.result(nodeid="t.py::test_c", outcome="skipped")
        run.finish()
        assert watching.stdout.readline() == "skipped - - t.py::test_c\n"
        said = f"{run.id}: 3 of 3 tests, ended: 1 failed, 1 passed, 1 skipped\n"
        assert watching.stdout.readline() == said
        assert watching.wait(30) == 1


def test_what_runs_now(tmp_path: Path) -> None:
    from pytest_hil.artifacts import index
    from pytest_hil.artifacts.follow import Follower

    run = Run.create(tmp_path, targets=["qemu"])
    test = run.test("t.py::test_a", "qemu", worker="gw1")
    (test.path / "console.log").write_bytes(b"first\r\n\x1b[1mlast\x1b[0m line\r\n\r\n")
    follower = Follower(index.find_run(tmp_path))
    assert follower.look() == []
    (one,) = follower.running()
    assert (one.worker, one.target, one.nodeid, one.said) == (
        *("gw1", "qemu", "t.py::test_a", "last line"),
    )
    assert 0 <= one.seconds < 60
    test.finish("passed")
    assert follower.running() == []


def test_a_run_that_was_killed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = f"""
import os
from pathlib import Path
import pytest

from pytest_hil.artifacts.store import Run
run = Run.create(Path({str(tmp_path)!r}), targets=["qemu"])
run.result(nodeid="t.py::test_a", outcome="passed")
with open(run.path / "results.jsonl", "a") as cut:
    cut.write('{{"nodeid": "t.py::te')
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], check=False, env=os.environ)
    assert main(["watch", "--artifacts", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert text.endswith(": 1 tests, killed: 1 passed\n")
