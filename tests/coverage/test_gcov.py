"""Counters become lines, and those that would be wrong do not."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pytest_hil.coverage.gcov import Counters, Gcov
from pytest_hil.coverage.model import FileCoverage
from pytest_hil.coverage.paths import Sources
from pytest_hil.errors import CoverageError, ForeignCoverage
from tests.coverage.conftest import build_program, gcc


def counters(*paths: Path) -> list[Counters]:
    return [Counters(path, str(path)) for path in paths]


def by_name(files: list[FileCoverage]) -> dict[str, FileCoverage]:
    return {Path(file.path).name: file for file in files}


def steps(value: int) -> int:
    """What the program's collatz() counts, and how often it calls odd()."""
    count = 0
    while value > 1:
        value = 3 * value + 1 if value % 2 else value // 2
        count += 1
    return count


def as_gcov_prints(directory: Path, unit: str) -> dict[int, int]:
    """The counts of a unit's own source in gcov's text."""
    subprocess.run(["gcov", unit], cwd=directory, check=True, capture_output=True, timeout=60)
    found = {}
    for row in (directory / f"{unit}.gcov").read_text().splitlines():
        count, line, _ = (word.strip() for word in row.split(":", 2))
        if count != "-":
            found[int(line)] = 0 if count.startswith(("#", "=")) else int(count.rstrip("*"))
    return found


def test_lines_are_as_gcov_prints_them(counted: Path, sources: Sources) -> None:
    read = Gcov(sources).read(counters(*counted.glob("*.gcda")))
    assert read.problems == []
    files = by_name(read.files)
    assert set(files) == {"work.c", "program.c"}
    for name, file in files.items():
        assert file.lines == as_gcov_prints(counted, name)
    work = files["work.c"]
    assert {name: count for (_, name), count in work.functions.items()} == {
        "odd": sum(map(steps, range(1, 40))) + len([v for v in range(-3, 200, 13) if v > 100]),
        "collatz": 39,
        "classify": 16,
        "work": 1,
    }
    assert sum(len(ways) for ways in work.branches.values()) > 10


def test_runs_add_up(program: Path, sources: Sources) -> None:
    """Two runs' files apart, and the file that the program itself added up."""
    directory = program.parent
    for number, argument in enumerate(("-5", "7")):
        subprocess.run([program, argument], check=True, capture_output=True, timeout=60)
        apart = directory / str(number)
        apart.mkdir()
        (directory / "work.gcda").rename(apart / "work.gcda")
    apart_read = Gcov(sources).read(
        Counters(directory / str(n) / "work.gcda", f"{directory}/work.gcda") for n in range(2)
    )
    for argument in ("-5", "7"):
        subprocess.run([program, argument], check=True, capture_output=True, timeout=60)
    together = Gcov(sources).read(counters(directory / "work.gcda"))
    assert apart_read.files == together.files
    assert together.problems == []


def test_a_foreign_stamp_is_an_error_that_names_both(counted: Path, sources: Sources) -> None:
    shutil.move(counted / "work.gcda", counted / "kept")
    with (counted / "work.c").open("a") as source:
        source.write("int more(void) { return 1; }\n")
    gcc(counted, "--coverage", "-c", "work.c")
    shutil.move(counted / "kept", counted / "work.gcda")
    read = Gcov(sources).read(counters(*counted.glob("*.gcda")))
    assert set(by_name(read.files)) == {"program.c"}
    (problem,) = read.problems
    assert isinstance(problem, ForeignCoverage)
    text = str(problem)
    assert f"{counted}/work.gcda is of another build than {counted}/work.gcno" in text
    assert len(set(re.findall(r"0x[0-9a-f]{8}", text))) == 2


def test_a_cut_file_is_said_and_nothing_of_it_counted(counted: Path, sources: Sources) -> None:
    data = (counted / "work.gcda").read_bytes()
    (counted / "work.gcda").write_bytes(data[: len(data) // 2])
    read = Gcov(sources).read(counters(*counted.glob("*.gcda")))
    assert set(by_name(read.files)) == {"program.c"}
    (problem,) = read.problems
    assert f"{counted}/work.gcda is truncated" in str(problem)


def test_notes_are_found_where_the_build_went(counted: Path, tmp_path: Path) -> None:
    """Built in one place, tested in another: by the map, and by searching."""
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in counted.glob("*.gc*"):
        path.rename(moved / path.name)
    (counted / "work.c").rename(moved / "work.c")
    where = [Counters(moved / "work.gcda", f"{counted}/work.gcda")]
    mapped = Sources((moved,), mapping=((str(counted), str(moved)),))
    files = Gcov(mapped).read(where).files
    assert [file.path for file in files] == [str(moved / "work.c")]
    below = moved / "deep" / "er"
    below.mkdir(parents=True)
    (moved / "work.gcno").rename(below / "work.gcno")
    assert Gcov(mapped).read(where).files == files
    (below / "work.gcno").unlink()
    (problem,) = Gcov(mapped).read(where).problems
    assert "there is no work.gcno of it" in str(problem)
    assert "keep it beside the object file" in str(problem)


def test_a_gcov_of_another_gcc_is_said(counted: Path, sources: Sources) -> None:
    for path in (counted / "work.gcda", counted / "work.gcno"):
        data = path.read_bytes()
        path.write_bytes(data[:4] + b"*99C" + data[8:])
    (problem,) = Gcov(sources, program="gcov").read(counters(counted / "work.gcda")).problems
    assert "was compiled by gcc 29, and gcov is of gcc" in str(problem)
    assert "--hil-cov-gcov" in str(problem)


def test_a_gcov_that_is_not_there_is_said(counted: Path, sources: Sources) -> None:
    read = Gcov(sources, program="no-such-gcov").read(counters(counted / "work.gcda"))
    assert read.files == []
    assert "no-such-gcov is not on PATH" in str(read.problems[0])


def test_excluded_lines_and_files_do_not_count(tmp_path: Path) -> None:
    source = tmp_path / "some.c"
    source.write_text(
        "int main(int argc, char **argv) {\n"
        "    if (argc > 5) return 1; /* LCOV_EXCL_LINE */\n"
        "    /* GCOVR_EXCL_START */\n"
        "    if (argc > 6) return 2;\n"
        "    /* GCOVR_EXCL_STOP */\n"
        "    return argc > 7 ? 3 : 0; /* LCOV_EXCL_BR_LINE */\n"
        "}\n"
    )
    gcc(tmp_path, "--coverage", "-c", "some.c")
    gcc(tmp_path, "--coverage", "some.o", "-o", "some")
    subprocess.run([tmp_path / "some"], check=True, timeout=60)
    (file,) = Gcov(Sources((tmp_path,))).read(counters(tmp_path / "some.gcda")).files
    assert file.numbers == [1, 6]
    assert file.branches == {}
    for omit in ("*/some.c", "some.c", "some.*"):
        omitted = Sources((tmp_path,), omit=(omit,))
        assert Gcov(omitted).read(counters(tmp_path / "some.gcda")).files == []
    elsewhere = Sources((tmp_path / "sub",), builds=(tmp_path,))
    assert Gcov(elsewhere).read(counters(tmp_path / "some.gcda")).files == []


@pytest.mark.parametrize("text", ["nothing", "relative=here", "/built="])
def test_a_map_that_is_none_is_said(text: str, tmp_path: Path) -> None:
    from pytest_hil.coverage.paths import parse_mapping

    with pytest.raises(ValueError, match="is not BUILT=HERE"):
        parse_mapping([text], tmp_path)


def test_one_process_counts_many_as_single_ones_do(tmp_path: Path) -> None:
    found = []
    for number in range(3):
        directory = tmp_path / str(number)
        directory.mkdir()
        program = build_program(directory)
        for _ in range(number + 1):
            subprocess.run([program], check=True, capture_output=True, timeout=60)
        found += sorted(directory.glob("*.gcda"))
    gcov = Gcov(Sources((tmp_path,)))
    single = [file for path in found for file in gcov.read(counters(path)).files]
    together = gcov.read(counters(*found))
    assert together.problems == []
    assert sorted(together.files, key=lambda f: f.path) == sorted(single, key=lambda f: f.path)


@pytest.mark.parametrize("name", ["", "/", "work.gcda", "/a\0b.gcda", "/../x", "\udcff.gcda"])
def test_a_name_from_a_console_may_be_anything(counted: Path, sources: Sources, name: str) -> None:
    (problem,) = Gcov(sources).read([Counters(counted / "work.gcda", name)]).problems
    assert "is no path of counters" in str(problem)


def test_what_is_no_gcda_names_itself(tmp_path: Path) -> None:
    (tmp_path / "x.gcda").write_text("not one")
    (problem,) = Gcov(Sources((tmp_path,))).read(counters(tmp_path / "x.gcda")).problems
    assert isinstance(problem, CoverageError)
    assert "x.gcda" in str(problem)
