"""The same tests on several targets."""

from __future__ import annotations

import pytest

from pytest_hil import Target


def test_on_each(hil: Target) -> None:
    assert hil.run("uname -s").stdout == "Linux\n"


@pytest.mark.hil(features=["smp"])
def test_where_the_feature_is(hil: Target) -> None:
    assert int(hil.run("nproc").stdout) > 1


@pytest.mark.hil(target="qemu")
def test_on_one(hil: Target) -> None:
    assert hil.run("nproc").stdout == "1\n"


def test_that_knows_where_it_is(hil: Target) -> None:
    assert int(hil.run("nproc").stdout) == (2 if hil.name == "dual" else 1)
