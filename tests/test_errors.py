"""What error messages do with words that are not ours."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.errors import CommandFailed, one_line, visible


@given(st.text())
def test_nothing_visible_steers_a_terminal(text: str) -> None:
    shown = visible(text)
    assert len(shown) == len(text)
    assert {c for c in shown if unicodedata.category(c) == "Cc"} <= {"\n", "\t"}


def test_what_stays_as_it_is() -> None:
    text = "tab\there\néé 日本 🙂 \N{REPLACEMENT CHARACTER}\n"
    assert visible(text) == text
    assert visible("\x1b[2J\x0e\r\x7f\x9b\u202e") == "␛[2J␎␍␡\ufffd\ufffd"


def test_one_line() -> None:
    assert one_line("a\x1b[31mred\nnext\u2028last") == "a␛[31mred next last"


def test_a_commands_output_in_a_message() -> None:
    error = CommandFailed("clear", exit_code=1, stdout="\x1b[2Jgone\x07", stderr="")
    assert "␛[2Jgone␇" in str(error)
    assert error.stdout == "\x1b[2Jgone\x07"
