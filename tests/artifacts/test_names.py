"""Names of directories: readable, safe, bounded, told apart."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_hil.artifacts.names import LONGEST, directory_name, run_id

MOMENT = datetime(2026, 11, 20, 22, 45, 1, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nodeid", "target", "name"),
    [
        ("tests/test_usb.py::test_plug", "qemu", "tests-test_usb.py--test_plug@qemu"),
        ("t.py::TestA::test_b[hid-1.5]", "rpi4", "t.py--TestA--test_b-hid-1.5@rpi4"),
        ("../t.py::test", "", "t.py--test~"),
        ("t.py::test[a b]", "qemu", "t.py--test-a_b@qemu~"),
        ("", "", "test~"),
    ],
)
def test_a_name_can_be_read(nodeid: str, target: str, name: str) -> None:
    got = directory_name(nodeid, target)
    assert got == name or re.fullmatch(re.escape(name) + "[0-9a-f]{8}", got)
    assert name.endswith("~") == (got != name)


@given(st.text(max_size=400), st.text(max_size=20))
@settings(deadline=None)
def test_a_name_is_always_safe(nodeid: str, target: str) -> None:
    name = directory_name(nodeid, target)
    assert re.fullmatch(r"[A-Za-z0-9_=+,@~][A-Za-z0-9._=+,@~-]*", name)
    assert len(name) <= LONGEST


def test_what_is_cut_or_changed_is_told_apart() -> None:
    long = "t.py::test[" + "x" * 200
    names = {directory_name(long + end, "qemu") for end in ("a]", "b]")}
    names |= {directory_name(f"t.py::test[{c}]", "qemu") for c in "ä€ "}
    assert len(names) == 5


@given(
    st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=400)),
    st.timedeltas(min_value=timedelta(microseconds=22), max_value=timedelta(days=400)),
)
@settings(deadline=None)
def test_run_ids_sort_by_time(since: timedelta, later: timedelta) -> None:
    first = MOMENT + since
    assert run_id(first) < run_id(first + later)


def test_a_run_id() -> None:
    assert run_id(MOMENT) == "2026-11-20T22-45-01-i00"
