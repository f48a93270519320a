"""The answer to HELLO is found in whatever was in the channel."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.agent.frames import FrameType, pack
from pytest_hil.agent.protocol import Data, Done, Event, HelloOk
from pytest_hil.agent.session import Session
from pytest_hil.errors import ProtocolError

NONCE = bytes(range(100, 116))
OK = HelloOk(NONCE, 1, "build", "x86_64")
OTHER = HelloOk(bytes(16), 1, "build", "x86_64")


def feed(session: Session, data: bytes, sizes: list[int]) -> list[Event]:
    events = []
    for size in [*sizes, len(data)]:
        events += session.feed(data[:size])
        data = data[size:]
    return events


stale = (
    st.binary(max_size=200)
    | st.sampled_from(
        [
            pack(FrameType.DATA, 3, bytes(1000))[:500],  # cut off: it would swallow what follows
            pack(FrameType.EXIT, 3, bytes(4)),
            OTHER.pack(),
            OTHER.pack()[:30],
            OK.pack()[:25],
        ]
    )
)


@given(st.lists(stale, max_size=4), st.lists(st.integers(0, 60), max_size=30))
def test_stale_bytes_are_discarded(before: list[bytes], sizes: list[int]) -> None:
    session = Session()
    session.start(NONCE)
    stream = b"".join(before) + OK.pack() + pack(FrameType.DONE, 9)
    assert feed(session, stream, sizes) == [OK, Done(9)]


def test_nothing_is_heard_before_start() -> None:
    assert Session().feed(OK.pack() + pack(FrameType.DONE, 9)) == []


def test_a_second_start_discards_the_first_session() -> None:
    session = Session()
    session.start(bytes(16))
    assert session.feed(OTHER.pack() + pack(FrameType.DATA, 1, b"x")) == [OTHER, Data(1, 0, b"x")]
    session.start(NONCE)
    assert session.feed(pack(FrameType.DATA, 1, b"y") + OTHER.pack() + OK.pack()) == [OK]


@pytest.mark.parametrize("junk", [b"login: ", pack(99), pack(FrameType.EXIT, 1, b"abc")])
def test_nonsense_within_a_session_ends_it(junk: bytes) -> None:
    session = Session()
    session.start(NONCE)
    session.feed(OK.pack())
    with pytest.raises(ProtocolError):
        session.feed(junk + pack(FrameType.DONE, 1) + bytes(20))
    assert session.feed(pack(FrameType.DONE, 1)) == []
    session.start(NONCE)
    assert session.feed(OK.pack()) == [OK]


@given(st.binary(max_size=500), st.lists(st.integers(1, 50), max_size=20))
def test_waiting_holds_few_bytes(data: bytes, sizes: list[int]) -> None:
    session = Session()
    session.start(NONCE)
    feed(session, data * 10, sizes)
    assert len(session._tail) < 40
