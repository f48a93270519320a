"""Bytes in, text out, however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_hil.console.stream import AnsiStripper, Newlines, TextStream, clean, split_utf8

# Bytes that come near everything the machines look at, far more often than random ones would.
near_sequences = st.lists(
    st.sampled_from(
        [bytes([byte]) for byte in b"\x1b[]P( ;?mK\\\x07\r\n\x18\xff\x80x"]
        + [b"31", b"text", b"\r\n", b"\x1b[1m", b"\x1b]0;t\x07", b"\x1b]0;t\x1b\\"]
        + ["é€🙂".encode(), b"\xe2\x82", b"\x1b[" + b"1" * 65, b"x" * 4090]
    ),
    max_size=30,
).map(b"".join)


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({c % (len(data) + 1) for c in cuts})
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


@settings(deadline=None)
@given(near_sequences, st.lists(st.integers(min_value=0), max_size=40))
def test_any_cut_gives_the_same_text(data: bytes, cuts: list[int]) -> None:
    stream = TextStream()
    text = "".join(stream.feed(piece) for piece in cut(data, cuts)) + stream.finish()
    assert text == clean(data)


@settings(deadline=None)
@given(near_sequences)
def test_byte_by_byte_gives_the_same_text(data: bytes) -> None:
    stream = TextStream()
    text = "".join(stream.feed(data[i : i + 1]) for i in range(len(data))) + stream.finish()
    assert text == clean(data)


@settings(deadline=None)
@given(near_sequences)
def test_no_escape_is_left_and_none_is_lost_for_ever(data: bytes) -> None:
    stream = TextStream()
    text = stream.feed(data)
    assert "\x1b" not in text + stream.finish()
    # Whatever came before, a few harmless lines later the stream is in step again.
    stream = TextStream()
    stream.feed(data + b"\n")
    assert stream.feed(b"\nlogin: ").endswith("\nlogin: ")


@given(st.text(alphabet=st.characters(exclude_characters="\x1b\r", exclude_categories=["Cs"])))
def test_plain_text_is_untouched(text: str) -> None:
    assert clean(text.encode()) == text


@pytest.mark.parametrize(
    ("said", "seen"),
    [
        (b"\x1b[1;31mred\x1b[0m", "red"),
        (b"a\x1b[6nb", "ab"),  # busybox sh asks for the cursor at each prompt
        (b"\x1b[?2004hroot# ", "root# "),
        (b"\x1b]0;title\x07text", "text"),
        (b"\x1b]8;;http://x\x1b\\link", "link"),
        (b"\x1bP1$r0m\x1b\\x", "x"),
        (b"\x1b(Bx\x1b7y\x1b=z\x1bc", "xyz"),
        (b"a\x1b\x1b[mb", "ab"),
        (b"\x1b[3\nx", "[3\nx"),  # broken: the ESC goes, the rest is text
        (b"\x1b]never ended\nx", "]never ended\nx"),
        (b"\x1b]" + b"y" * 5000, "]" + "y" * 5000),
        (b"one\r\ntwo\r\r\nthree", "one\ntwo\nthree"),
        (b"10%\r20%\r\n", "10%\r20%\n"),
        ("é€🙂".encode(), "é€🙂"),
        (b"\xff\xfeok", "\ufffd\ufffdok"),
        (b"cut \xe2\x82", "cut \ufffd"),
        (b"\x1b", ""),
    ],
)
def test_what_is_seen(said: bytes, seen: str) -> None:
    assert clean(said) == seen


def test_text_is_not_held_back_without_need() -> None:
    stream = TextStream()
    assert stream.feed(b"login: ") == "login: "
    assert stream.feed(b"abc\x1b[") == "abc"
    assert stream.feed(b"0m# ") == "# "


def test_what_is_held_back_is_bounded() -> None:
    stripper = AnsiStripper()
    stripper.feed("\x1b]")
    given_back = sum(len(stripper.feed("y" * 1000)) for _ in range(100))
    assert given_back == 100_001
    newlines = Newlines()
    assert len(newlines.feed("\r" * 100_000)) == 99_998


@given(st.text(max_size=20), st.integers(min_value=0, max_value=80))
def test_split_utf8_keeps_characters_whole(text: str, cut_at: int) -> None:
    data = text.encode("utf-8", "replace")[:cut_at]
    whole, started = split_utf8(data)
    assert whole + started == data
    assert len(started) <= 3
    whole.decode()


@given(st.binary(max_size=20))
def test_split_utf8_loses_nothing(data: bytes) -> None:
    whole, started = split_utf8(data)
    assert whole + started == data
    assert len(started) <= 3
