"""Every log of the corpus gives what it says that it gives, however it comes."""

from __future__ import annotations

import random
import re

import pytest

from pytest_hil.crash import Crash, Detector
from pytest_hil.crash.rules import BUILTIN
from tests.crash import cases
from tests.crash.cases import Case

CASES = [*cases.made(), *cases.guest()]


def crashes(case: Case, parts: list[bytes]) -> list[Crash]:
    detector = Detector(watch_resets=case.watch)
    found = [crash for part in parts for crash in detector.feed(part)]
    return found + detector.finish()


@pytest.mark.parametrize("name", [*cases.FILES, "guest"])
def test_logs(name: str) -> None:
    chosen = cases.guest() if name == "guest" else cases.of(name)
    assert chosen
    at_once = {case.name: crashes(case, [case.data]) for case in chosen}
    wrong = {
        case.name: (said, case.expected)
        for case in chosen
        if (said := tuple(map(cases.facts, at_once[case.name]))) != case.expected
    }
    assert wrong == {}
    for case in chosen:
        found = at_once[case.name]
        assert crashes(case, pieces(case)) == found, case.name
        for crash in found:
            # The text is what stands between the offsets; a title has nothing of one run in it.
            assert 0 <= crash.start < crash.end <= len(case.data)
            last = crash.text.splitlines()[-1].rsplit("] ", 1)[-1]
            assert last.encode() in case.data[crash.start : crash.end]
            assert not re.search(r"0x[0-9a-f]{5,}|\+0x|[0-9a-f]{8}", crash.title)


def pieces(case: Case) -> list[bytes]:
    """A log in pieces of all sizes."""
    seed = random.Random(case.name)
    cut, rest = [], case.data
    while rest:
        size = seed.choice((1, 2, 7, 40, 300))
        cut.append(rest[:size])
        rest = rest[size:]
    return cut


def test_the_corpus_is_as_large_as_it_is_said_to_be() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 150
    assert sum(not case.expected for case in CASES) >= 20


def test_every_family_is_in_it() -> None:
    tried = {expected[0] for case in CASES for expected in case.expected}
    assert {rule.kind for rule in BUILTIN} - tried == set()


def test_all_in_one_stream_are_found_as_one_by_one() -> None:
    """One console that says everything, one after another, each after a silence."""
    order = [case for case in CASES if not case.watch and "dmesg" not in case.name]
    random.Random(5).shuffle(order)
    detector = Detector()
    for case in order:
        found = detector.feed(case.data)
        for _ in range(3):
            found += detector.idle()
        detector.restarted()
        # What is whole ends before what is not.
        assert sorted(map(cases.facts, found)) == sorted(case.expected), case.name
