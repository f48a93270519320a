"""Markers of single parameters: ``pytest.param(…, marks=pytest.mark.hil(…))``."""

from __future__ import annotations

import pytest

TEST = """
import pytest

@pytest.mark.hil(smp=2)
@pytest.mark.parametrize("number", [
    1,
    pytest.param(2, marks=pytest.mark.hil(features=["laser"])),
    pytest.param(3, marks=pytest.mark.hil(target="other")),
    pytest.param(4, marks=pytest.mark.hil(smp=1)),
])
def test_it(hil, number):
    pass
"""


def test_they_choose_and_change(plain: pytest.Pytester) -> None:
    plain.makepyfile(test_it=TEST)
    items, _ = plain.inline_genitems("--hil-target=qemu")
    from pytest_hil.plugin.selection import wanted_of

    wanted = [wanted_of(item) for item in items]
    assert [one and getattr(one.target, "smp", None) for one in wanted] == [2, 2, 2, 1]
    reasons = [[mark.kwargs["reason"] for mark in item.iter_markers("skip")] for item in items]
    assert reasons == [
        [],
        ["the target qemu lacks the feature laser"],
        ["only for the target other; chosen: qemu"],
        [],
    ]


def test_a_wrong_one_names_its_test(plain: pytest.Pytester) -> None:
    plain.makepyfile(test_it=TEST.replace("smp=1", "smpp=1"))
    done = plain.runpytest_inprocess("--hil-target=qemu", "--collect-only")
    assert done.ret != 0
    done.stdout.fnmatch_lines(["*test_it.py:*test_it*smpp=*there is no such key*"])
