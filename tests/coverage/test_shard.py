"""Coverage on disk: whole or not at all; merged in any grouping, it is the same."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_hil.coverage import shard
from pytest_hil.coverage.model import FileCoverage, merge_file, subtract
from pytest_hil.coverage.shard import Shard
from pytest_hil.errors import CoverageError

files = st.builds(
    lambda path, lines, branches, functions: FileCoverage(
        path, sorted(lines), [lines[n] for n in sorted(lines)], branches, functions
    ),
    st.sampled_from(["a.c", "d/a.c", "d/b.c", "d/e/a.c", "é.c"]),
    st.dictionaries(st.integers(1, 9), st.integers(0, 3)),
    st.dictionaries(
        st.tuples(st.integers(1, 9), st.sampled_from("fg")),
        st.lists(st.integers(0, 3), min_size=2, max_size=3),
    ),
    st.dictionaries(st.tuples(st.integers(1, 9), st.sampled_from("fg")), st.integers(0, 3)),
)
tests = st.lists(st.lists(files, max_size=4, unique_by=lambda file: file.path), max_size=5)


def counts(all_files: list[FileCoverage]) -> tuple[Counter[object], ...]:
    lines: Counter[object] = Counter()
    functions: Counter[object] = Counter()
    branches: Counter[object] = Counter()
    for file in all_files:
        for line, count in file.lines.items():
            lines[file.path, line] += count
        for key, count in file.functions.items():
            functions[file.path, key] += count
        for ways in file.branches.values():
            branches[file.path] += sum(ways)
    return lines, functions, branches


@settings(max_examples=15, deadline=None)
@given(tests, st.integers(2, 4))
def test_merging_is_adding(
    tmp_path_factory: pytest.TempPathFactory, found: list[list[FileCoverage]], fan_in: int
) -> None:
    place = tmp_path_factory.mktemp("merging")
    expected = counts([file for test in found for file in test])
    by_test = {
        (f"test {number}", file.path, line): count
        for number, test in enumerate(found)
        for file in test
        for line, count in file.lines.items()
        if count
    }
    for number, test in enumerate(found):
        shard.write(place / f"{number}.jsonl", [f"test {number}"], test)
    whole = shard.merge(place.glob("*.jsonl"), place / "all", fan_in=fan_in)
    merged = list(whole)
    assert counts(merged) == expected
    assert len({file.path for file in merged}) == len(merged)
    assert {
        (whole.contexts[test], file.path, line): count
        for file in merged
        for test, own in file.tests
        for line, count in zip(file.numbers, own, strict=True)
        if count
    } == by_test
    assert [path.name for path in place.glob(".*")] == []


def random_test(seed: int) -> list[FileCoverage]:
    rng = random.Random(seed)
    return [
        FileCoverage(
            f"/src/{number}.c",
            list(range(1, 50)),
            [rng.randrange(3) for _ in range(49)],
            {(7, "f"): [rng.randrange(3), rng.randrange(3)]},
            {(1, "f"): rng.randrange(2)},
        )
        for number in range(20)
    ]


def test_four_workers_merge_is_one_workers_run(tmp_path: Path) -> None:
    for number in range(40):
        shard.write(tmp_path / f"{number:02}.jsonl", [f"test {number}"], random_test(number))
    one = shard.merge(tmp_path.glob("*.jsonl"), tmp_path / "one")
    for worker in range(4):
        its = tmp_path.glob(f"*{worker}.jsonl")
        rest = tmp_path.glob(f"*{worker + 4}.jsonl")
        more = tmp_path.glob(f"*{worker + 8}.jsonl") if worker < 2 else ()
        shard.merge([*its, *rest, *more], tmp_path / f"worker{worker}")
    four = shard.merge(tmp_path.glob("worker*"), tmp_path / "four")

    def named(whole: Shard) -> list[object]:
        return [
            (f.path, f.numbers, f.counts, f.branches, f.functions,
             sorted((whole.contexts[test], own) for test, own in f.tests))
            for f in whole
        ]  # fmt: skip

    assert sorted(four.contexts) == sorted(one.contexts)
    assert named(four) == named(one)


def test_a_shard_that_was_cut_off_is_not_counted(tmp_path: Path) -> None:
    good, cut = tmp_path / "good.jsonl", tmp_path / "cut.jsonl"
    shard.write(good, ["good"], random_test(1))
    shard.write(cut, ["cut"], random_test(2)[:2])
    data = cut.read_bytes()
    for size in [*range(0, len(data), 7), len(data) - 1]:
        cut.write_bytes(data[:size])
        with pytest.raises(CoverageError, match=r"cut\.jsonl"):
            Shard(cut)
    problems: list[CoverageError] = []
    merged = shard.merge([good, cut], tmp_path / "all", broken=problems)
    assert list(merged) == list(Shard(good))
    assert len(problems) == 1


def test_a_line_that_is_missing_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    shard.write(path, ["x"], random_test(1))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3] + lines[4:]))
    with pytest.raises(CoverageError, match="has 19 files, and says 20"):
        list(Shard(path))


def test_another_version_is_no_shard_of_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    shard.write(path, ["x"], [])
    path.write_text(path.read_text().replace('"version":1', '"version":2'))
    with pytest.raises(CoverageError, match="no coverage of this version"):
        Shard(path)


def test_nothing_is_left_of_a_writer_that_failed(tmp_path: Path) -> None:
    def files() -> Iterator[FileCoverage]:
        yield random_test(1)[0]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), shard.ShardWriter(tmp_path / "x", ["x"]) as writer:  # noqa: PT012
        for file in files():
            writer.add(file)
    assert list(tmp_path.iterdir()) == []


def test_it_is_json_for_everybody(tmp_path: Path) -> None:
    shard.write(tmp_path / "x", ["t\udc80é"], [FileCoverage("/é\n.c", [1], [2])])
    first, second, last = map(json.loads, (tmp_path / "x").read_text("ascii").splitlines())
    assert (first["contexts"], second["path"], last) == (["t\udc80é"], "/é\n.c", {"end": 1})


def test_branches_of_other_code_are_not_added() -> None:
    a = FileCoverage("x.c", [1], [1], {(1, "f"): [1, 0]})
    b = FileCoverage("x.c", [1, 2], [1, 1], {(1, "f"): [1, 0, 5]})
    merged = merge_file([a, b])
    assert sorted(map(tuple, merged.branches.values())) == [(1, 0), (1, 0, 5)]
    assert merged.lines == {1: 2, 2: 1}


def test_what_is_counted_since() -> None:
    before = FileCoverage("x.c", [1, 2], [3, 0], {(1, "f"): [1, 2]}, {(1, "f"): 3})
    after = FileCoverage("x.c", [1, 2], [5, 1], {(1, "f"): [1, 4]}, {(1, "f"): 5})
    since = subtract(after, before)
    assert (since.lines, since.branches, since.functions) == (
        {1: 2, 2: 1},
        {(1, "f"): [0, 2]},
        {(1, "f"): 2},
    )
    assert merge_file([before, since]).lines == after.lines
