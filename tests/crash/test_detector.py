"""The detector as a machine: pieces, silence, bounds, what is put together by its user."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_hil.crash import Crash, Detector, Rule, Rules, Severity, user_rule
from pytest_hil.crash.line import LONGEST
from pytest_hil.crash.report import MOST_BYTES, MOST_LINES
from pytest_hil.crash.scan import Scanner
from pytest_hil.errors import ConfigError
from tests.crash import cases

LINES = sorted({line for case in cases.made() for line in case.data.splitlines(keepends=True)})
NOISE = st.sampled_from([b"\r", b"\x1b[31m", b"[    1.000000] ", b"\xff\xfe", b"\0", b"a" * 5000])
OOPS = b"""\
[    3.100000] BUG: kernel NULL pointer dereference, address: 0000000000000018
[    3.100001] Oops: 0000 [#1] SMP PTI
[    3.100002] CPU: 0 PID: 71 Comm: buf Not tainted 5.15.0 #1
[    3.100003] RIP: 0010:put_buf+0x9/0x20
[    3.100004] Call Trace:
[    3.100005]  buf_close+0x29/0xf0
"""
OOPS_END = b"[    3.100006] ---[ end trace 21b8f8a0b7d2b1c4 ]---\n"
TITLE = "NULL pointer dereference in put_buf"


def whole(data: bytes, rules: Rules | None = None) -> list[Crash]:
    detector = Detector(rules)
    return detector.feed(data) + detector.finish()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(LINES), NOISE), max_size=60), st.data())
def test_the_pieces_make_no_difference(lines: list[bytes], draw: st.DataObject) -> None:
    data = b"".join(lines)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(data)), max_size=20)))
    detector = Detector(watch_resets=True)
    found = []
    for begin, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        found += detector.feed(data[begin:end])
    found += detector.finish()
    at_once = Detector(watch_resets=True)
    assert found == at_once.feed(data) + at_once.finish()
    for crash in found:
        assert crash.title
        assert 0 <= crash.start < crash.end <= len(data)


def test_byte_by_byte_is_as_at_once() -> None:
    data = b"".join(case.data for case in cases.made() if not case.watch)[:60_000]
    data = data.replace(b"BUG: ", b"x" * (LONGEST - 7) + b" BUG: ", 2)
    detector = Detector()
    found = [crash for at in range(len(data)) for crash in detector.feed(data[at : at + 1])]
    assert found + detector.finish() == whole(data)
    assert len(found) > 20


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"", b"\r", b"\x1b[0;1m", b"<4>"]), st.binary(max_size=30), st.data())
def test_the_fast_scan_sees_every_header(before: bytes, noise: bytes, draw: st.DataObject) -> None:
    """What the slow look would find is found: no rule has a header that the scan is blind to."""
    line = draw.draw(st.sampled_from(HEADERS))
    assume(not (before == b"<4>" and line.startswith(b"<")))  # nobody says two levels
    block = b"\n" + noise.replace(b"\n", b"") + b"\n" + before + line
    assert list(KNOWN.scanner.lines(block)) == [block.rindex(before + line)]


KNOWN = Rules()
HEADERS = [
    line
    for line in LINES
    if any(
        (found := KNOWN.find(message.text))
        and message.start == 0
        and (message.kernel or not found[0].printk_only)
        for message in cases.messages_of(line)
    )
]


def test_most_headers_are_tried() -> None:
    assert len(HEADERS) > 120


def test_a_crash_comes_when_its_last_line_has_come_and_something_else() -> None:
    detector = Detector()
    assert detector.feed(b"[    3.0] hello\n" + OOPS + OOPS_END, at=7.5) == []
    assert detector.reading
    (found,) = detector.feed(b"".join(b"[    9.%06d] usb 1-1: x\n" % n for n in range(9)), at=9.0)
    assert (found.title, found.corrupted, found.at, found.until) == (TITLE, False, 7.5, 7.5)
    assert found.text.encode() == OOPS + OOPS_END
    assert (found.start, found.end) == (16, 16 + len(OOPS + OOPS_END))
    assert not detector.reading


def test_silence_ends_what_is_whole() -> None:
    detector = Detector()
    assert detector.feed(OOPS + OOPS_END) == []
    (found,) = detector.idle()
    assert not found.corrupted
    assert detector.idle() == detector.finish() == []


def test_two_silences_end_what_is_not() -> None:
    detector = Detector()
    detector.feed(OOPS)
    assert detector.idle() == []
    assert detector.reading
    (found,) = detector.idle()
    assert (found.title, found.corrupted) == (TITLE, True)


def test_a_pause_in_a_report_does_not_cut_it() -> None:
    detector = Detector()
    detector.feed(OOPS)
    assert detector.idle() == []
    assert detector.feed(OOPS_END) == []
    (found,) = detector.idle()
    assert not found.corrupted


def test_a_last_line_without_an_end_counts_after_two_silences() -> None:
    detector = Detector()
    detector.feed(b"Guru Meditation Error: Core  0 panic'ed (LoadProhibited). Exception")
    assert detector.reading
    assert detector.idle() == []
    (found,) = detector.idle()
    assert found.title == "Guru Meditation: LoadProhibited"


def test_a_prompt_is_nothing_to_wait_for() -> None:
    detector = Detector()
    detector.feed(b"login: ")
    assert not detector.reading
    assert detector.idle() == detector.idle() == []


def test_a_panic_a_second_after_is_a_follow_up() -> None:
    detector = Detector()
    detector.feed(OOPS + OOPS_END)
    assert len(detector.idle()) == 1
    detector.feed(b"[    9.000000] Kernel panic - not syncing: late\n")
    (found,) = detector.idle()
    assert found.follow_up
    detector.restarted()
    detector.feed(b"[    9.000000] Kernel panic - not syncing: late\n")
    (found,) = detector.idle()
    assert not found.follow_up


def test_an_endless_report_is_bounded() -> None:
    frame = b"[    3.100005]  buf_close+0x29/0xf0\n"
    detector = Detector()
    found = detector.feed(OOPS + frame * (3 * MOST_LINES))
    assert [crash.corrupted for crash in found] == [True]
    assert len(found[0].text.splitlines()) == MOST_LINES
    wide = b"[    3.100005]  buf_close+0x29/0xf0 " + b"x" * 3000 + b"\n"
    (found[0],) = Detector().feed(OOPS + wide * 200)
    assert len(found[0].text) < MOST_BYTES + LONGEST


def test_headers_without_end_are_bounded() -> None:
    flood = b"".join(
        b"[    4.%06d][ T%d] ------------[ cut here ]------------\n" % (n, n) for n in range(5_000)
    )
    detector = Detector()
    found = detector.feed(flood)
    assert len(found) > 4_900
    assert len(detector.finish()) < 100


@pytest.mark.parametrize(
    "header", ["BUG: KCSAN: data-race in ", "BUG: ", "WARNING: CPU: 0 PID: 1 at "]
)
@pytest.mark.parametrize("filling", ["a", ".", ".isra.0", "a/a.c:1 ", "x+0x1/0x2 ", "] ", "\x1b["])
def test_a_hostile_line_costs_little_and_makes_a_short_title(header: str, filling: str) -> None:
    line = f"[    2.000000] {header}{filling * LONGEST}"[: LONGEST - 1].encode() + b"\n"
    began = time.thread_time()
    found = whole(line * 20)
    assert time.thread_time() - began < 5
    for crash in found:
        assert len(crash.title) <= 300
        assert crash.title.isprintable()


def test_an_endless_line_hides_nothing_after_it() -> None:
    bar = b"\r 12 %" * 5000
    for pieces in ([bar + b"\n" + OOPS + OOPS_END], [bar, bar, b"\r\n", OOPS, OOPS_END]):
        detector = Detector()
        found = [crash for piece in pieces for crash in detector.feed(piece)]
        assert [crash.title for crash in found + detector.finish()] == [TITLE]


def test_what_is_ignored_is_not_said_and_nothing_follows_from_it() -> None:
    rules = Rules().ignoring(r"NULL pointer .* in put_\w+")
    warning = b"[    9.100000] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2\n[    9.1] x\n"
    (found,) = whole(OOPS + OOPS_END + warning, rules)
    assert (found.title, found.follow_up) == ("WARNING in f", False)


def test_rules_of_an_ini_file() -> None:
    rules = Rules().reading(
        ["", "door: DOOR (open|ajar) at \\d+ ... DOOR shut", "fan: fan (?:slow|off)$"]
    )
    said = b"ok\nDOOR ajar at 7\ndetail\nDOOR shut\r\nfan slow\r\nok\nfan off now\n"
    one, fan = whole(said, rules)
    assert (one.kind, one.title, one.severity) == ("door", "ajar", Severity.ERROR)
    assert one.text == "DOOR ajar at 7\ndetail\nDOOR shut\n"
    assert (fan.kind, fan.title) == ("fan", "fan slow")
    assert whole(said) == []


def test_a_rule_of_a_users_own_is_found_at_all_speeds() -> None:
    """Where its pattern cannot be looked for in a block, each line is tried."""
    for header in (r"(?i)bad thing", r"(?P<what>bad) thing$", r"bad\b thing", r"(b)ad (?!x)thing"):
        rules = Rules().adding(user_rule("own", header, severity="warning"))
        for before in (b"", b"[    1.000000] ", b"[    1.000000][  T12] \x1b[31m", b"\x1b[0m"):
            assert [c.kind for c in whole(b"x\n" + before + b"bad thing\r\ny\n", rules)] == ["own"]
        assert whole(b"not a bad thing\n", rules) == []


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (r"\w+: broken", "Gerät: broken"),
        (r"bad.thing", "badäthing"),
        (r"[éè]rror", "èrror"),
        (r"bad thing", "bad \x1b[31mthing\x1b[0m"),
    ],
)
def test_a_rule_of_a_users_own_finds_letters_and_not_bytes(header: str, said: str) -> None:
    rules = Rules().adding(user_rule("own", header))
    for before in ("", "[    1.000000] "):
        assert [c.kind for c in whole(f"x\n{before}{said}\r\ny\n".encode(), rules)] == ["own"]


@pytest.mark.parametrize("header", ["bad thing", r"(?i)bad thing$"])
def test_a_prompt_is_not_waited_for(header: str) -> None:
    """Whoever asks at a test's end would wait for two silences."""
    detector = Detector(Rules().adding(user_rule("own", header)))
    assert detector.feed(b"~ # \x1b[6n") == []
    assert not detector.reading
    assert detector.feed(b"\r\n\x1b[1mbad thing") == []
    assert detector.reading
    assert [c.kind for c in (*detector.idle(), *detector.idle())] == ["own"]


def test_a_rule_whose_title_fails_tells_of_its_crash_all_the_same() -> None:
    def wrong(body: object) -> str:
        raise LookupError("no title")

    rule = Rule(
        kind="own", severity=Severity.ERROR, header=re.compile("uh oh (.*)"), title=wrong,
        starts=("uh oh",), lone=True, firm=True,
    )  # fmt: skip
    (found,) = whole(b"uh oh at 0x1234567\n", Rules().adding(rule))
    assert found.title == "own: uh oh at ADDR"


def test_a_kind_can_be_left_out() -> None:
    assert whole(OOPS + OOPS_END, Rules().without("oops", "bug")) == []
    with pytest.raises(ConfigError, match="did you mean 'kasan'"):
        Rules().without("kasam")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Rules().reading(["nonsense"]), "Write KIND: HEADER"),
        (lambda: Rules().reading(["Door: x"]), "not a kind"),
        (lambda: Rules().reading(["door: (x"]), "no regular expression"),
        (lambda: Rules().reading(["door: x ... ["]), "its end"),
        (lambda: Rules().reading(["door: x*"]), "matches every line"),
        (lambda: Rules().ignoring("("), "no regular expression"),
        (lambda: user_rule("door", "x", severity="bad"), "fatal, error, warning, user"),
    ],
)
def test_wrong_rules_are_told_of(make: object, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        make()  # type: ignore[operator]


def test_no_rules_find_nothing() -> None:
    assert whole(OOPS + OOPS_END, Rules(rules=())) == []
    assert list(Scanner(()).lines(b"\n" + OOPS)) == []


def test_a_reset_is_one_only_while_nobody_asked_for_it() -> None:
    banner = b"U-Boot 2023.01 (Jan 01 2023 - 00:00:00 +0000)\n"
    detector = Detector()
    assert detector.feed(banner) == []
    detector.watch_resets = True
    detector.feed(banner)
    (found,) = detector.idle()
    assert (found.kind, found.title) == ("reset", "unexpected reset: U-Boot")


def test_a_reset_ends_what_was_being_said() -> None:
    detector = Detector(watch_resets=True)
    oops, reset = detector.feed(OOPS + b"U-Boot 2023.01 (Jan 01 2023 - 00:00:00 +0000)\nnext\n")
    assert (oops.title, oops.corrupted) == (TITLE, True)
    assert (reset.kind, reset.follow_up) == ("reset", True)
