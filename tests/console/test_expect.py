"""The search over a capture: order, lists, ends, and nothing lost between two searches."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_hil.console.capture import Capture
from pytest_hil.console.expect import LOOKBACK, search
from pytest_hil.console.stream import clean
from pytest_hil.errors import ConsoleClosed, ExpectTimeout


def heard(*pieces: bytes, keep: int = 2**20, history: bytes = b"") -> Capture:
    capture = Capture(history=history, keep=keep, grace=0.0)
    for piece in pieces:
        capture.feed(piece, 0.0)
    return capture


def test_a_match_says_what_and_where() -> None:
    capture = heard(b"boot\r\n\x1b[1mkernel 6.1.0\x1b[0m ready\r\n")
    match = search(capture, r"kernel (?P<major>\d+)\.(\d+)", timeout=0)
    assert match.text == "kernel 6.1"
    assert match.before == "boot\n"
    assert match.groups == ("6", "1")
    assert match.group("major") == "6"
    assert match.group() == "kernel 6.1"
    assert match.index == 0


def test_each_search_begins_where_the_last_match_ended() -> None:
    capture = heard(b"one two one three")
    assert search(capture, "one", timeout=0).before == ""
    assert search(capture, "one", timeout=0).before == " two "
    assert search(capture, "t.*", timeout=0).text == "three"
    with pytest.raises(ExpectTimeout):
        search(capture, "one", timeout=0)


def test_of_a_list_the_first_in_the_text_wins() -> None:
    capture = heard(b"a panic, then login: ")
    match = search(capture, ["login:", re.compile("PANIC", re.I), "a"], timeout=0)
    assert (match.index, match.text) == (2, "a")
    match = search(capture, ["login:", re.compile("PANIC", re.I), "a"], timeout=0)
    # "a" is also in "panic", but begins later.
    assert (match.index, match.text) == (1, "panic")


def test_exact_takes_strings_literally() -> None:
    capture = heard(b"a.c abc a.c")
    match = search(capture, ["zzz", "a.c"], timeout=0, exact=True)
    assert (match.index, match.text, match.before, match.groups) == (1, "a.c", "", ())
    assert match.group() == "a.c"
    with pytest.raises(IndexError):
        match.group(1)
    assert search(capture, "a.c", timeout=0, exact=True).before == " abc "


def test_history_is_not_searched() -> None:
    capture = heard(b"live ready", history=b"inherited ready\n")
    assert search(capture, "ready", timeout=0).before == "live "


def test_a_timeout_keeps_what_was_said() -> None:
    capture = heard(b"half of it")
    with pytest.raises(ExpectTimeout, match="half of it") as caught:
        search(capture, ["login:", re.compile("#")], timeout=0.01)
    assert caught.value.wanted == ("login:", "#")
    capture.feed(b", login:", 0.0)
    assert search(capture, "half.*login:", timeout=0).text == "half of it, login:"


def test_the_message_of_a_timeout_is_short_after_a_line_without_end() -> None:
    capture = heard(b"x" * 500_000)
    with pytest.raises(ExpectTimeout) as caught:
        search(capture, "never", timeout=0)
    assert len(str(caught.value)) < 20_000


def test_at_the_end_what_was_said_is_searched_first() -> None:
    capture = heard(b"panic\nlast words")
    capture.finish()
    assert search(capture, "panic", timeout=5).text == "panic"
    with pytest.raises(ConsoleClosed, match="last words"):
        search(capture, "login:", timeout=5)


def test_who_waits_gets_the_owners_reason_even_when_it_comes_after_the_end() -> None:
    capture = Capture(history=b"", keep=1024, grace=5.0)
    capture.finish()
    threading.Timer(0.05, capture.fail, [RuntimeError("qemu died")]).start()
    with pytest.raises(RuntimeError, match="qemu died"):
        search(capture, "login:", timeout=10)


def test_last_words_that_come_after_the_owners_reason_are_still_found() -> None:
    capture = Capture(history=b"", keep=1024, grace=5.0)
    capture.fail(RuntimeError("qemu died"))
    threading.Timer(0.05, capture.feed, [b"panic", 0.0]).start()
    assert search(capture, "panic", timeout=10).text == "panic"


def test_without_a_reason_the_end_is_told_after_the_grace() -> None:
    capture = Capture(history=b"", keep=1024, grace=0.05)
    capture.finish()
    began = time.monotonic()
    with pytest.raises(ConsoleClosed):
        search(capture, "login:", timeout=None)
    assert 0.04 < time.monotonic() - began < 5


def test_wrong_patterns_are_named() -> None:
    with pytest.raises(TypeError, match="compiled pattern of strings, not b'x'"):
        search(heard(), [b"x"], timeout=0)  # type: ignore[list-item]
    with pytest.raises(TypeError, match="wants a string, not"):
        search(heard(), [re.compile("x")], timeout=0, exact=True)
    with pytest.raises(ValueError, match="needs a pattern"):
        search(heard(), [], timeout=0)


words = st.lists(st.text(alphabet="ab", min_size=1, max_size=6), min_size=1, max_size=12)


@given(words, st.lists(st.integers(min_value=1, max_value=20), max_size=20))
@settings(deadline=None)
def test_nothing_is_lost_however_it_comes(said: list[str], sizes: list[int]) -> None:
    """Every word is found, in order, though it comes in pieces while it is waited for."""
    data = "".join(f"<{word}>" for word in said).encode()
    pieces = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    capture = Capture(history=b"", keep=4096, grace=0.0)
    with ThreadPoolExecutor(1) as pool:
        finding = pool.submit(lambda: [search(capture, r"<(\w+)>", timeout=10) for _ in said])
        for piece in [*pieces, data]:
            capture.feed(piece, 0.0)
        found = finding.result()
    assert [match.groups[0] for match in found] == said
    assert {match.before for match in found} == {""}


@given(st.lists(st.binary(max_size=12), max_size=8), st.sampled_from(["é€", "🙂", "x", ""]))
@settings(deadline=None)
def test_the_cursor_stands_right_behind_the_match(noise: list[bytes], word: str) -> None:
    """Also when what precedes and follows it has characters of several bytes, or broken ones."""
    capture = heard(*noise, f"\n<{word}>".encode(), *noise, b"\nend")
    before = search(capture, f"\n<{word}>", timeout=0, exact=True).before
    after = search(capture, "\nend", timeout=0, exact=True).before
    assert before.rstrip("\r") == clean(b"".join(noise)).rstrip("\r")
    assert after.rstrip("\r") == before.rstrip("\r")


def test_a_match_across_pieces_is_found_within_the_lookback() -> None:
    capture = Capture(history=b"", keep=2**20, grace=0.0)
    middle = b"x" * (LOOKBACK // 2)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(search, capture, "BEGIN.*END", timeout=10)
        for piece in (b"BEGIN", middle, b"END"):
            capture.feed(piece, 0.0)
            let_followers_read(capture)
        assert len(waiting.result().text) == len(middle) + 8


def let_followers_read(capture: Capture) -> None:
    with capture.changed:
        assert capture.changed.wait_for(
            lambda: all(f.position == capture.end for f in capture._followers), 10
        )


def test_what_comes_at_once_is_searched_whole() -> None:
    capture = heard(b"needle" + b"x" * (4 * LOOKBACK))
    assert search(capture, "needle", timeout=0).text == "needle"


def test_what_was_dropped_is_said() -> None:
    capture = heard(*[b"x" * 999 + b"\n"] * 100, b"end", keep=10_000)
    before = search(capture, "end", timeout=0).before
    first, rest = before.split("\n", 1)
    assert re.fullmatch(
        r"\[pytest-hil: \d+ bytes before this were left out; no transcript has them\]", first
    )
    left_out = int(re.findall(r"\d+", first)[0])
    assert left_out + len(rest) == 100_000
