"""What the payloads mean."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import MAX_PAYLOAD, Decoder, Frame, FrameType, pack
from pytest_hil.agent.protocol import Data, Done, Entry, Event, Exit, Failed, FileEnd, HelloOk
from pytest_hil.errors import ProtocolError

names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
u32 = st.integers(0, 2**32 - 1)


def parse(frame: bytes) -> Event:
    (decoded,) = Decoder().feed(frame)
    return protocol.parse(decoded)


@given(
    st.builds(
        Entry,
        operation=u32,
        kind=st.sampled_from("fdl"),
        name=names,
        mode=u32,
        uid=u32,
        gid=u32,
        mtime=st.integers(-(2**63), 2**63 - 1),
        size=st.integers(0, 2**64 - 1),
        target=names,
    )
)
def test_entries_come_back(entry: Entry) -> None:
    assert parse(entry.pack()) == entry


def test_names_may_be_any_bytes() -> None:
    entry = Entry(1, "f", b"caf\xe9".decode("utf-8", "surrogateescape"), 0o644)
    assert b"caf\xe9\0" in entry.pack()
    assert parse(entry.pack()) == entry


@given(u32, st.integers(0, 2**64 - 1), u32)
def test_file_ends_come_back(operation: int, size: int, crc: int) -> None:
    end = FileEnd(operation, size, crc)
    assert parse(end.pack()) == end


def test_answers() -> None:
    ok = HelloOk(bytes(16), 1, "0123456789abcdef", "riscv64")
    assert parse(ok.pack()) == ok
    assert parse(pack(FrameType.EXIT, 3, struct.pack("<i", 2))) == Exit(3, 2, False)
    assert parse(pack(FrameType.EXIT, 3, struct.pack("<i", 9), 3)) == Exit(3, -9, True)
    assert parse(pack(FrameType.DONE, 3)) == Done(3)
    assert parse(pack(FrameType.DATA, 3, b"x", 2)) == Data(3, 2, b"x")
    assert parse(pack(FrameType.ERROR, 3, struct.pack("<I", 28) + b"full")) == Failed(3, 28, "full")


@given(st.integers(0, 255), st.integers(0, 255), u32, st.binary(max_size=100))
def test_nonsense_is_a_protocol_error_and_nothing_else(
    type_: int, flags: int, operation: int, payload: bytes
) -> None:
    with contextlib.suppress(ProtocolError):
        protocol.parse(Frame(type_, flags, operation, payload))


def test_a_command_that_is_too_long_is_refused_here() -> None:
    with pytest.raises(ValueError, match="put\\(\\) a script"):
        protocol.execute(1, ["x" * MAX_PAYLOAD], credit=1)
    with pytest.raises(ValueError, match="1 to 8192"):
        protocol.execute(1, [], credit=1)
    with pytest.raises(ValueError, match="NUL"):
        protocol.execute(1, ["a\0b"], credit=1)


def test_too_little_entropy_is_refused_here() -> None:
    with pytest.raises(ValueError, match="32 to 512 bytes, not 31"):
        protocol.personalise(1, entropy=bytes(31))
