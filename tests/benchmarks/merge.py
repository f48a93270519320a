"""Merging the coverage of four workers: 2,000 files of 400 lines each. Peer: gcovr, on the same.

Both read four files and write one lcov tracefile, each in a process of its own. The peer's are in
its own format. Both results must say the same of every line.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

from pytest_hil import process
from pytest_hil.coverage import shard
from pytest_hil.coverage.model import FileCoverage
from pytest_hil.errors import InfrastructureError
from tests.benchmarks.context import Context
from tests.benchmarks.peer import environment
from tests.benchmarks.result import Line, at_most, line

PEER = "gcovr==8.8"
WORKERS, FILES, LINES = 4, 2000, 400
# So many different ones a worker, over and over: writing them is no part of it.
KINDS = 23

# Its last word is its own peak of memory. (What getrusage() says begins with that of its parent.)
_MEASURED = """
import re, runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
except SystemExit as end:
    if end.code: raise
finally:
    print(*re.findall("VmHWM.*", open("/proc/self/status").read()), file=sys.stderr)
"""


def measure(context: Context) -> list[Line]:
    files = context.times(FILES, 200)
    place = context.scratch / "merge"
    place.mkdir()
    context.tell("merge: writing what four workers have found")
    ours, theirs = write(place, files)
    found = place / "ours.info"
    seconds, peaks = [], []
    for number in range(context.times(5, 2)):
        context.tell(f"merge: {number + 1}")
        one, peak = _timed(
            Path(sys.executable), "tests.benchmarks.merge", *map(str, ours), str(found)
        )
        seconds.append(one)
        peaks.append(peak)
    context.tell("merge: the peer, once")
    python = environment(context.bench.cache, context.tell, PEER) / "bin" / "python"
    other = place / "theirs.info"
    tracefiles = [word for path in theirs for word in ("--add-tracefile", str(path))]
    peer_seconds, peer_peak = _timed(
        python, "gcovr", *tracefiles, "--root", str(place), "--lcov", str(other)
    )
    if (mine := lines_of(found)) != lines_of(other) or len(mine) != files * LINES:
        raise InfrastructureError("the two results differ")
    return [
        line("merge", seconds, "s", at_most(5), peer=[peer_seconds]),
        line("merge-memory", peaks, "MB", at_most(300), peer=[peer_peak]),
    ]


def write(place: Path, files: int) -> tuple[list[Path], list[Path]]:
    """What each worker found, in our format and in the peer's."""
    ours, theirs = [], []
    for number in range(files):
        # The peer does not report on a file that is not there.
        source = place / f"part{number // 50:02}" / f"file{number:04}.c"
        source.parent.mkdir(exist_ok=True)
        source.write_text("a line\n" * (2 * LINES + 3))
    for worker in range(WORKERS):
        rng = random.Random(worker)
        kinds = [_file(rng) for _ in range(KINDS)]
        contents = [json.dumps(_for_peer(each)) for each in kinds]
        names = [f"part{n // 50:02}/file{n:04}.c" for n in range(files)]
        ours.append(place / f"{worker}.jsonl")
        shard.write(
            ours[-1],
            [f"worker {worker}"],
            (replace(kinds[n % KINDS], path=str(place / name)) for n, name in enumerate(names)),
        )
        theirs.append(place / f"{worker}.json")
        with theirs[-1].open("w") as out:
            out.write('{"gcovr/format_version": "0.15", "files": [')
            for n, name in enumerate(names):
                out.write(", " * bool(n) + f'{{"file": "{name}", ' + contents[n % KINDS][1:])
            out.write("]}")
    return ours, theirs


def _file(rng: random.Random) -> FileCoverage:
    numbers = list(range(3, 3 + 2 * LINES, 2))
    counts = [rng.choice((0, 0, 1, 5, 1000)) for _ in numbers]
    branches = {
        (at, f"function_{at // 40}"): [count // 2, count - count // 2]
        for at, count in zip(numbers[::8], counts[::8], strict=True)
    }
    functions = {
        (at, f"function_{at // 40}"): count
        for at, count in zip(numbers[::20], counts[::20], strict=True)
    }
    return FileCoverage("", numbers, counts, branches, functions)


def _for_peer(file: FileCoverage) -> dict[str, object]:
    branches = {line: counts for (line, _), counts in file.branches.items()}
    return {
        "lines": [
            {
                "line_number": number,
                "count": count,
                "branches": [
                    {
                        "branchno": n,
                        "count": c,
                        "fallthrough": False,
                        "throw": False,
                        "source_block_id": 0,
                    }
                    for n, c in enumerate(branches.get(number, []))
                ],
            }
            for number, count in zip(file.numbers, file.counts, strict=True)
        ],
        "functions": [
            {
                "name": name,
                "demangled_name": name,
                "lineno": line,
                "execution_count": count,
                "blocks_percent": 100.0,
            }
            for (line, name), count in file.functions.items()
        ],
    }


def _timed(python: Path, module: str, *arguments: str) -> tuple[float, float]:
    """Seconds, and the peak of its memory in MB."""
    began = time.perf_counter()
    argv = [str(python), "-P", "-c", _MEASURED, module, *arguments]
    done = process.run(argv, timeout=1800)
    seconds = time.perf_counter() - began
    (peak,) = re.findall(r"^VmHWM:\s+(\d+) kB$", done.stderr.decode(), re.MULTILINE)
    return seconds, int(peak) * 1024 / 1e6


def lines_of(tracefile: Path) -> dict[tuple[str, int], int]:
    """How often each line ran, over all sections."""
    found: dict[tuple[str, int], int] = {}
    name = ""
    for row in tracefile.read_text().splitlines():
        if row.startswith("SF:"):
            name = Path(row[3:]).name
        elif row.startswith("DA:"):
            number, count, *_ = row[3:].split(",")
            found[name, int(number)] = found.get((name, int(number)), 0) + int(count)
    return found


def main(shards: list[str], out: str) -> None:
    """What the plugin does at the end of a run: merge what is on disk, and report it."""
    from pytest_hil.coverage.report import lcov

    whole = shard.merge(map(Path, shards), Path(out).with_suffix(".jsonl"))
    lcov.write(whole, Path(out))


if __name__ == "__main__":
    main(sys.argv[1:-1], sys.argv[-1])
