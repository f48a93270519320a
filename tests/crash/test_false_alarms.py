"""Much that is ordinary gives no alarm; a crash in the midst of it is found all the same."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

from pytest_hil.crash import Detector
from tests.crash import cases
from tests.crash.ordinary import ordinary

MB = 1_000_000


def documents(size: int) -> Iterator[bytes]:
    """What Debian's packages say of themselves: changelogs, licences, lists of bugs."""
    made = 0
    for path in sorted(Path("/usr/share/doc").rglob("*")):
        if made >= size:
            return
        if path.is_file() and path.suffix in {".gz", ".txt", ".md", ".html", ""}:
            raw = path.read_bytes()[:MB]
            try:
                data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else raw
            except (OSError, EOFError):
                continue
            made += len(data)
            yield data + b"\n"


def alarms(parts: Iterator[bytes]) -> tuple[int, list[str]]:
    """How many bytes there were, and every title."""
    detector = Detector()
    size, found = 0, []
    for part in parts:
        size += len(part)
        found += [crash.title for crash in detector.feed(part)]
    return size, found + [crash.title for crash in detector.finish()]


def test_two_megabytes_of_ordinary_text() -> None:
    assert alarms(ordinary(2 * MB, seed=1)) == (2 * MB, [])


@pytest.mark.slow
def test_a_hundred_megabytes_of_ordinary_text() -> None:
    size, found = alarms(chain(ordinary(90 * MB, seed=2), documents(40 * MB)))
    assert found == []
    assert size >= 90 * MB


def test_crashes_in_the_midst_of_it_are_found() -> None:
    """The same text, with a report between its pieces: nothing else is found, and nothing less."""
    pick = random.Random(3)
    chosen = [
        case
        for case in cases.made()
        if case.expected and not case.watch and "C" not in "".join(e[2] for e in case.expected)
    ]
    detector = Detector()
    for number, part in enumerate(ordinary(4 * MB, seed=3)):
        found = detector.feed(part[: part.rindex(b"\n") + 1])
        assert found == [], number
        case = pick.choice(chosen)
        found = detector.feed(case.data) + detector.idle()
        detector.restarted()
        assert sorted(map(cases.facts, found)) == sorted(case.expected), case.name
