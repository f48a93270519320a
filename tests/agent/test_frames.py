"""Any stream, however it is cut, gives the same frames, and nothing can make the decoder fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.agent.frames import HEADER_SIZE, MAGIC, MAX_PAYLOAD, Decoder, Frame, FrameType, pack

frames = st.builds(
    Frame,
    type=st.sampled_from(FrameType),
    flags=st.integers(0, 255),
    operation=st.integers(0, 2**32 - 1),
    payload=st.binary(max_size=200),
)


def packed(frame: Frame) -> bytes:
    return pack(frame.type, frame.operation, frame.payload, frame.flags)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return [*pieces, data]


def test_a_frame_is_these_bytes() -> None:
    assert (
        pack(FrameType.DATA, 7, b"hello", 1)
        == bytes.fromhex("1b48494c 03 01 a4b7 07000000 05000000 00000000") + b"hello"
    )
    assert pack(FrameType.CANCEL, 1) == bytes.fromhex(
        "1b48494c 05 00 2cae 01000000 00000000 00000000"
    )


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 100), max_size=30))
def test_any_split_gives_the_same_frames(sent: list[Frame], sizes: list[int]) -> None:
    decoder = Decoder()
    stream = b"".join(map(packed, sent))
    assert [f for piece in cut(stream, sizes) for f in decoder.feed(piece)] == sent
    assert decoder.skipped == decoder.damaged == 0


@given(st.lists(st.binary(max_size=200) | frames.map(packed), max_size=20))
def test_no_bytes_make_it_fail_or_grow(pieces: list[bytes]) -> None:
    decoder = Decoder()
    for piece in pieces:
        decoder.feed(piece)
        assert len(decoder._rest) < HEADER_SIZE + MAX_PAYLOAD


@given(st.binary(max_size=300).filter(lambda junk: MAGIC[:1] not in junk), frames)
def test_a_frame_is_found_after_junk(junk: bytes, frame: Frame) -> None:
    decoder = Decoder()
    assert decoder.feed(junk + packed(frame)) == [frame]
    assert decoder.skipped == len(junk)


@given(frames, frames, st.integers(0, HEADER_SIZE - 1), st.integers(1, 255))
def test_a_damaged_header_costs_only_its_frame(
    first: Frame, second: Frame, at: int, change: int
) -> None:
    stream = bytearray(packed(first))
    stream[at] ^= change
    decoder = Decoder()
    found = decoder.feed(bytes(stream) + packed(second))
    assert found[-1:] == [second]
    assert first not in found[:-1]
    assert decoder.skipped or decoder.damaged


def test_a_damaged_payload_is_not_passed_on() -> None:
    stream = bytearray(pack(FrameType.EXEC, 1, b"rm -r /tmp/x"))
    stream[-1] ^= 1
    decoder = Decoder()
    assert decoder.feed(bytes(stream)) == []
    assert decoder.damaged == 1


def test_a_length_beyond_the_limit_is_no_header() -> None:
    huge = pack(FrameType.DATA, 1, bytes(MAX_PAYLOAD + 1))
    decoder = Decoder()
    assert decoder.feed(huge) == []
    assert decoder.skipped > MAX_PAYLOAD
