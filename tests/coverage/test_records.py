"""Every way of cutting one of gcc's files is seen; so is what is none."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.coverage import records
from pytest_hil.errors import CoverageError


def test_a_whole_file_is_read_and_its_stamp_is_that_of_its_notes(counted: Path) -> None:
    header = records.read_data((counted / "work.gcda").read_bytes(), "work.gcda")
    assert header == records.read_notes(counted / "work.gcno")
    assert header.stamp != records.read_notes(counted / "program.gcno").stamp


def test_each_cut_is_seen(counted: Path) -> None:
    data = (counted / "work.gcda").read_bytes()
    for size in range(len(data)):
        with pytest.raises(CoverageError, match=rf"work.gcda is truncated: it ends after {size} b"):
            records.read_data(data[:size], "work.gcda")


def test_what_goes_on_after_its_end_is_seen(counted: Path) -> None:
    data = (counted / "work.gcda").read_bytes()
    with pytest.raises(CoverageError, match="goes on for 3 bytes after its end mark"):
        records.read_data(data + b"abc", "work.gcda")


def as_of_a_kernel(data: bytes) -> bytes:
    """Without the object's summary, and without the end mark."""
    assert data[-4:] == bytes(4)
    (tag, length) = struct.unpack_from("<II", data, 16)
    assert tag == 0xA1000000
    return data[:16] + data[24 + length : -4]


def functions_of(data: bytes) -> list[int]:
    """Where the functions of a kernel's file begin, and its end."""
    found, at = [], 16
    while at < len(data):
        tag, length = struct.unpack_from("<Ii", data, at)
        if tag == 0x01000000:
            found.append(at)
        at += 8 + max(0, length)
    return [*found, len(data)]


def test_each_cut_of_a_kernels_file_within_a_function_is_seen(counted: Path) -> None:
    data = as_of_a_kernel((counted / "work.gcda").read_bytes())
    records.read_data(data, "work.gcda", kernel=True)
    whole = functions_of(data)
    assert len(whole) == 5
    for size in range(len(data)):
        if size in whole:
            continue  # it has no mark of its end
        with pytest.raises(CoverageError, match="is truncated"):
            records.read_data(data[:size], "work.gcda", kernel=True)
    with pytest.raises(CoverageError, match="before its end mark"):
        records.read_data(data, "work.gcda")


def test_the_other_byte_order_is_the_same(counted: Path) -> None:
    data = (counted / "work.gcda").read_bytes()
    words = struct.unpack(f"<{len(data) // 4}I", data)
    there = records.read_data(struct.pack(f">{len(words)}I", *words), "work.gcda")
    assert there.order == ">"
    assert there.stamp == records.read_data(data, "work.gcda").stamp


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "truncated: it ends after 0 bytes, in its header"),
        (b"\x7fELF" + bytes(60), "is no .gcda file: it begins with b'.x7fELF'"),
        (b"adcg*804" + bytes(60), "is of a compiler that it calls '408"),
        (b"adcg" + bytes(60), "is of a compiler"),
    ],
)
def test_what_is_none_is_said(data: bytes, said: str) -> None:
    with pytest.raises(CoverageError, match=said):
        records.read_data(data, "x.gcda")


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_do_more_than_raise(rest: bytes, kernel: bool) -> None:
    for data in (rest, b"adcg*22B" + rest, b"gcdaB22*" + rest):
        try:
            records.read_data(data, "x.gcda", kernel=kernel)
        except CoverageError:
            pass
