"""``--hil-cov``: what is said before the first test, and what a run leaves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.coverage.conftest import EXAMPLE, gcc
from tests.plugin.conftest import Inner


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hil-cov=nowhere"], "nowhere: there is no such file or directory"),
        (["--hil-cov", "--hil-cov-report=hmtl"], "did you mean 'html'?"),
        (["--hil-cov", "--hil-cov-fail-under=101"], "'101' is no percentage from 0 to 100"),
        (["--hil-cov-report=html"], "--hil-cov-report: of what? add --hil-cov"),
        (["--hil-cov-fail-under=80"], "--hil-cov-fail-under: of what? add --hil-cov"),
        (["--hil-cov", "-o", "hil_cov_map=there"], "hil_cov_map: 'there' is not BUILT=HERE"),
    ],
)
def test_what_is_wrong_is_said_first(plain: pytest.Pytester, options: list[str], said: str) -> None:
    plain.makepyfile("def test_it(): pass")
    result = plain.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in result.stderr.str()


def test_a_run_that_counted_nothing_says_so(plain: pytest.Pytester) -> None:
    plain.makepyfile("def test_it(): pass")
    result = plain.runpytest_inprocess("--hil-cov")
    assert result.ret == pytest.ExitCode.OK
    result.stdout.fnmatch_lines(["*nothing was counted: no test had a target*"])
    result = plain.runpytest_inprocess("--hil-cov", "--hil-cov-fail-under=1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["FAIL: no coverage came"])


LOSSES = """
from pathlib import Path

def test_no_room(hil):
    hil.run("mkdir -p $GCOV_PREFIX; echo what is no counter > $GCOV_PREFIX/it.gcda")
    (coverage("no_room") / "problems.jsonl").mkdir()

def test_killed_while_it_wrote(hil):
    coverage("killed").mkdir()
    (coverage("killed") / "problems.jsonl").write_text('{"kind": "probl')

def test_killed_before_it_wrote(hil):
    coverage("before").mkdir()
    (coverage("before") / "problems.jsonl").write_text("")

def coverage(name):
    (directory,) = Path(".hil/runs").glob(f"*/*{name}*@qemu")
    return directory / "coverage"
"""


@pytest.mark.machine
@pytest.mark.parametrize("workers", ["-n0", "-n1"])
def test_coverage_that_could_not_be_written_is_lost(inner: Inner, workers: str) -> None:
    inner.write(LOSSES)
    options = ["--hil-target=qemu", "--hil-cov", "--hil-cov-fail-under=0", workers]
    assert inner.run(*options) == pytest.ExitCode.TESTS_FAILED
    assert "3 passed, 1 warning" in inner.text
    assert "not counted: what was counted could not be written: Is a directory" in inner.text
    assert "::test_no_room)" in inner.text
    assert inner.text.count("problems.jsonl was cut off: it is not known what else was lost") == 2
    assert "FAIL: some coverage was lost" in inner.text


TESTS = """
import pytest

@pytest.mark.parametrize("value", [-5, 0, 7, 101])
def test_value(hil, value):
    hil.put("program", "/root/program")
    hil.run(["/root/program", str(value)])

def test_two_machines(hil, hil_open):
    other = hil_open()
    for each in (hil, other):
        each.put("program", "/root/program")
        each.run(["/root/program", "50"])

def test_other_build(hil):
    hil.put("other", "/root/program")
    hil.run(["/root/program", "7"])
"""


@pytest.mark.machine
def test_a_run_on_two_workers(inner: Inner) -> None:
    place = inner.directory
    for name in ("work.c", "work.h", "program.c"):
        shutil.copy(EXAMPLE / name, place)
    for out in ("other", "program"):  # the first one's notes are overwritten
        gcc(place, "--coverage", "-c", "work.c", "program.c")
        gcc(place, "--coverage", "-static", "work.o", "program.o", "-o", out)
    inner.write(TESTS)
    reports = [f"--hil-cov-report={kind}" for kind in ("term", "html", "lcov:here/lcov.info")]
    under = "--hil-cov-fail-under=10"
    assert inner.run("--hil-target=qemu", "-n", "2", "--hil-cov", *reports, under) == 1
    assert "ERROR test_inner.py::test_other_build" in inner.text
    assert f"{place}/work.gcda is of another build than {place}/work.gcno" in inner.text
    assert "1 error" in inner.text
    assert "6 passed" in inner.text
    assert "FAIL: some coverage was lost" in inner.text
    (run,) = (place / ".hil" / "runs").iterdir()
    facts = json.loads((run / "coverage.json").read_text())["files"]
    assert set(facts) == {"work.c", "program.c"}
    assert f"lcov: {place}/here/lcov.info" in inner.text
    lines = _lines(place / "here" / "lcov.info")
    # classify() ran once for each machine, but not for that of the other build.
    begin = 1 + (place / "work.c").read_text().splitlines().index("int classify(int value)")
    assert lines["work.c", begin] == 6
    assert (run / "coverage" / "index.html").is_file()
    page = "".join(path.read_text() for path in (run / "coverage" / "files").iterdir())
    assert "test_inner.py::test_value[101]" in page


@pytest.mark.machine
def test_a_report_that_cannot_be_written_is_alone_with_that(inner: Inner) -> None:
    place = inner.directory
    for name in ("work.c", "work.h", "program.c"):
        shutil.copy(EXAMPLE / name, place)
    gcc(place, "--coverage", "-static", "work.c", "program.c", "-o", "program")
    inner.write(
        """
def test_it(hil):
    hil.put("program", "/root/program")
    hil.run(["/root/program", "7"])
"""
    )
    nowhere = place / "work.c" / "lcov.info"
    kinds = (f"lcov:{nowhere}", f"json:{place}", "term", "json:ok.json")
    reports = [f"--hil-cov-report={kind}" for kind in kinds]
    assert inner.run("--hil-target=qemu", "--hil-cov", *reports, "--hil-cov-fail-under=1") == 1
    assert f"lcov:{nowhere} cannot be written: File exists: {place}/work.c" in inner.text
    assert f"json:{place} cannot be written: Is a directory: {place}" in inner.text
    assert f"json: {place}/ok.json" in inner.text
    assert json.loads((place / "ok.json").read_text())["files"]
    assert "branches" in inner.text  # the table
    assert "1 passed" in inner.text
    for word in ("not counted", "FAIL"):  # nothing was lost, and it was enough
        assert word not in inner.text


def _lines(tracefile: Path) -> dict[tuple[str, int], int]:
    found: dict[tuple[str, int], int] = {}
    name = ""
    for row in tracefile.read_text().splitlines():
        if row.startswith("SF:"):
            name = Path(row[3:]).name
        elif row.startswith("DA:"):
            line, count = map(int, row[3:].split(","))
            found[name, line] = found.get((name, line), 0) + count
    return found
