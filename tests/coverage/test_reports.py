"""What other tools read of our reports is what was counted."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hil.coverage import shard
from pytest_hil.coverage.model import FileCoverage
from pytest_hil.coverage.report import cobertura, html, lcov, term
from pytest_hil.coverage.report import json as as_json
from pytest_hil.coverage.shard import Shard

# What a source, a test and a function may be called.
NASTY = 'tests/test_a.py::test[</script>&"x]'
TEMPLATE = "std::map<int, char>::operator()(int, char&)"


@pytest.fixture
def whole(tmp_path: Path) -> Shard:
    (tmp_path / "lib").mkdir()
    for name in ("main.c", "lib/a.c", "lib/b & c.c"):
        text = [f"line {n} of <{name}>" for n in range(1, 12)]
        (tmp_path / name).write_text("\n".join(text))
    one = [
        FileCoverage(
            str(tmp_path / "lib" / "a.c"),
            [1, 2, 3, 5, 6],
            [4, 0, 2, 0, 0],
            {(3, "f"): [1, 1], (3, "g"): [0, 0], (5, "f"): [0, 0]},
            {(1, "f"): 4, (2, TEMPLATE): 0},
        ),
        FileCoverage(str(tmp_path / "main.c"), [1, 2], [1, 1], {}, {(1, "main"): 1}),
    ]
    two = [
        FileCoverage(
            str(tmp_path / "lib" / "a.c"),
            [1, 2, 3, 5, 6],
            [1, 1, 0, 0, 0],
            {(3, "f"): [0, 0], (3, "g"): [0, 3], (5, "f"): [0, 0]},
            {(1, "f"): 1, (2, TEMPLATE): 1},
        ),
        FileCoverage(str(tmp_path / "lib" / "b & c.c"), [7], [0], {}, {(7, "never"): 0}),
    ]
    shard.write(tmp_path / "1", ["tests/test_a.py::test_one"], one)
    shard.write(tmp_path / "2", [NASTY], two)
    return shard.merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")


def run(*argv: object) -> str:
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_lcov_reads_the_tracefile(whole: Shard, tmp_path: Path) -> None:
    lcov.write(whole, tmp_path / "lcov.info")
    said = run("lcov", "--rc", "lcov_branch_coverage=1", "--summary", tmp_path / "lcov.info")
    assert "(5 of 8 lines)" in said
    assert "(3 of 4 functions)" in said
    assert "(3 of 6 branches)" in said


def test_genhtml_shows_each_test(whole: Shard, tmp_path: Path) -> None:
    lcov.write(whole, tmp_path / "lcov.info")
    options = ("--branch-coverage", "--show-details", "--quiet")
    said = run("genhtml", *options, "-o", tmp_path / "pages", tmp_path / "lcov.info")
    assert said == ""
    details = (tmp_path / "pages").rglob("index-detail.html")
    detail = next(path for path in details if path.parent.name == "lib")
    text = detail.read_text()
    assert "tests_test_a_py__test_one" in text
    assert "tests_test_a_py__test___script___x_" in text


def test_the_counts_in_it_are_the_sums(whole: Shard, tmp_path: Path) -> None:
    lcov.write(whole, tmp_path / "lcov.info")
    run("lcov", "-a", tmp_path / "lcov.info", "-o", tmp_path / "again.info")
    text = (tmp_path / "again.info").read_text()
    found: dict[tuple[str, int], int] = {}
    name = ""
    for row in text.splitlines():
        if row.startswith("SF:"):
            name = row[3:]
        elif match := re.fullmatch(r"DA:(\d+),(\d+)", row):
            key = (name, int(match[1]))
            found[key] = found.get(key, 0) + int(match[2])
    assert found == {(f.path, line): n for f in whole for line, n in f.lines.items()}


def test_gcovr_reads_cobertura(whole: Shard, tmp_path: Path) -> None:
    cobertura.write(whole, tmp_path / "cobertura.xml", base=tmp_path)
    gcovr = (sys.executable, "-m", "gcovr", "--root", tmp_path)
    out = tmp_path / "again.json"
    run(*gcovr, "--cobertura-add-tracefile", tmp_path / "cobertura.xml", "--json", out)
    read = {
        file["file"]: {line["line_number"]: line["count"] for line in file["lines"]}
        for file in json.loads(out.read_text())["files"]
    }
    assert read == {str(Path(f.path).relative_to(tmp_path)): f.lines for f in whole}


def test_cobertura_says_its_rates(whole: Shard, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    cobertura.write(whole, tmp_path / "cobertura.xml", base=tmp_path)
    root = ElementTree.parse(tmp_path / "cobertura.xml").getroot()
    assert (root.get("lines-covered"), root.get("lines-valid")) == ("5", "8")
    assert root.get("line-rate") == "0.6250"
    names = [package.get("name") for package in root.iter("package")]
    assert len(names) == len(set(names)) == 2
    methods = [method.get("name") for method in root.iter("method")]
    assert TEMPLATE in methods
    (line,) = [line for line in root.iter("line") if line.get("branch") == "true"][:1]
    assert line.get("condition-coverage") == "75% (3/4)"


def test_json_has_everything(whole: Shard, tmp_path: Path) -> None:
    as_json.write(whole, tmp_path / "report.json", base=tmp_path)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["tests"] == ["tests/test_a.py::test_one", NASTY]
    a = next(file for file in found["files"] if file["path"] == "lib/a.c")
    assert a["lines"] == {"1": 5, "2": 1, "3": 2, "5": 0, "6": 0}
    assert a["reached_by"] == {"0": [1, 3], "1": [1, 2]}
    assert found["totals"]["percent"] == 62.5


def test_pages_say_which_tests_reach_a_line(whole: Shard, tmp_path: Path) -> None:
    index = html.write(whole, tmp_path / "pages", base=tmp_path)
    text = index.read_text()
    assert "62.5 %" in text
    links = re.findall(r'href="(files/\d+\.html)">([^<]*)<', text)
    assert [name for _, name in links] == ["main.c", "lib/a.c", "lib/b &amp; c.c"]
    page = (index.parent / links[1][0]).read_text()
    assert "line 4 of &lt;lib/a.c&gt;" in page
    data = json.loads(re.findall(r"<script id=data[^>]*>(.*?)</script>", page)[0])
    by_line = dict(re.findall(r"<tr id=L(\d+) class=\w+><th>\d+<td><button data-set=(\d+)>", page))
    reached = {
        int(line): [data["tests"][str(test)] for test in data["sets"][int(which)]]
        for line, which in by_line.items()
    }
    one = "tests/test_a.py::test_one"
    assert reached == {1: [one, NASTY], 2: [NASTY], 3: [one]}
    assert re.findall(r"<tr id=L(\d+) class=(\w+)>", page) == [
        ("1", "hit"), ("2", "hit"), ("3", "part"), ("5", "miss"), ("6", "miss"),
    ]  # fmt: skip
    # Self-contained: nothing is fetched.
    assert "http" not in page + text
    assert "src=" not in page + text


def test_pages_without_a_source_show_lines_with_code(whole: Shard, tmp_path: Path) -> None:
    (tmp_path / "lib" / "a.c").unlink()
    html.write(whole, tmp_path / "pages", base=tmp_path)
    page = (tmp_path / "pages" / "files" / "1.html").read_text()
    assert "not on this host" in page
    assert page.count("<tr id=") == 5


def test_the_table(whole: Shard, tmp_path: Path) -> None:
    rows = list(term.table(whole, base=tmp_path))
    assert [row.split() for row in rows] == [
        ["lines", "missed", "cover", "branches", "missing"],
        ["main.c", "2", "0", "100%", "-"],
        ["lib/a.c", "5", "2", "60%", "3/6", "5-6"],
        ["lib/b", "&", "c.c", "1", "1", "0%", "-", "7"],
        ["TOTAL", "8", "3", "62%", "3/6"],
    ]


def test_missing_lines_are_shortened() -> None:
    file = FileCoverage("x", list(range(100)), [n % 2 for n in range(100)])
    text = term.missing(file)
    assert text.startswith("0, 2, 4")
    assert text.endswith(", …")
    assert len(text) < 64
