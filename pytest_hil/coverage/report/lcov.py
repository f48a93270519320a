"""lcov's tracefile, as genhtml and most services read it.

A source file has one section for all tests, with its functions, branches and the lines that none
ran; then one for each test (TN) that reached it, with what it ran. Readers add them up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pytest_hil.coverage.model import FileCoverage
from pytest_hil.coverage.shard import Shard


def write(shard: Shard, path: Path) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape") as out:
        names = test_names(shard.contexts)
        for file in shard:
            write_file(out, file, names)


def test_names(contexts: list[str]) -> list[str]:
    """What lcov takes as a test's name: letters, digits and _."""
    return [re.sub(r"\W", "_", name, flags=re.ASCII) for name in contexts]


def write_file(out: IO[str], file: FileCoverage, names: list[str]) -> None:
    """All sections of one source file."""
    out.write(f"TN:\nSF:{file.path}\n")
    out.writelines(_functions(file))
    out.writelines(_branches(file))
    counted = zip(file.numbers, file.counts, strict=True)
    missed = [f"DA:{number},0\n" for number, count in counted if not count]
    out.write(f"{''.join(missed)}LF:{len(missed)}\nLH:0\nend_of_record\n")
    for test, counts in file.tests:
        ran = [
            f"DA:{number},{count}\n"
            for number, count in zip(file.numbers, counts, strict=True)
            if count
        ]
        out.write(f"TN:{names[test]}\nSF:{file.path}\n{''.join(ran)}")
        out.write(f"LF:{len(ran)}\nLH:{len(ran)}\nend_of_record\n")


def _functions(file: FileCoverage) -> Iterator[str]:
    """lcov's names have no commas, and a name is on one line only."""
    seen: dict[str, int] = {}
    named = []
    for (line, name), count in sorted(file.functions.items()):
        name = name.replace(", ", ";").replace(",", ";")
        if seen.setdefault(name, line) != line:
            name = f"{name}@{line}"
        named.append((line, name, count))
    yield from (f"FN:{line},{name}\n" for line, name, _ in named)
    yield from (f"FNDA:{count},{name}\n" for _, name, count in named)
    yield f"FNF:{len(named)}\nFNH:{sum(1 for *_, count in named if count)}\n"


def _branches(file: FileCoverage) -> Iterator[str]:
    if not file.branches:
        return
    blocks: dict[int, int] = {}
    found = hit = 0
    for (line, _name), counts in sorted(file.branches.items()):
        block = blocks[line] = blocks.get(line, -1) + 1
        reached = any(counts)
        for number, count in enumerate(counts):
            yield f"BRDA:{line},{block},{number},{count if reached else '-'}\n"
        found += len(counts)
        hit += len(counts) - counts.count(0)
    yield f"BRF:{found}\nBRH:{hit}\n"
