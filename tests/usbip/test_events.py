"""Events as lines, and what tests say with them."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.usbip.events import (
    NotSeen,
    UsbEvent,
    assert_attached,
    format_line,
    parse_line,
    parse_lines,
    wait_for_usb_ready,
)

ATTACH = UsbEvent.of(
    "attach",
    busid="1-1",
    guest="2-1",
    port=0,
    vendor="0x1209",
    product="0x0003",
    nodes=["/dev/ttyACM0", "/dev/bus/usb/001/002"],
    ms=612,
)
LINE = (
    "hil-usb: attach busid=1-1 guest=2-1 port=0 vendor=0x1209 product=0x0003 "
    "nodes=/dev/ttyACM0,/dev/bus/usb/001/002 ms=612"
)

names = st.from_regex(r"[a-z][a-z0-9_-]{0,15}", fullmatch=True)
texts = st.text(max_size=30)
events = st.builds(
    UsbEvent, names, st.dictionaries(names, st.lists(texts, min_size=1, max_size=4).map(tuple))
)


def test_a_line_is_as_documented() -> None:
    assert format_line(ATTACH) == LINE
    assert parse_line(LINE) == ATTACH
    assert (ATTACH.vendor_id, ATTACH.product_id) == (0x1209, 3)
    assert ATTACH.nodes == ("/dev/ttyACM0", "/dev/bus/usb/001/002")
    assert ATTACH["port"] == "0"
    assert ATTACH["there is none"] == ""


@given(events)
def test_every_event_survives_its_line(event: UsbEvent) -> None:
    line = format_line(event)
    assert line.isascii()
    assert line.isprintable()
    assert parse_line(line) == event
    assert parse_line(f"[   12.3] {line}\r\n") == event


@given(st.text())
def test_whatever_a_line_says_it_is_read_or_refused(text: str) -> None:
    for line in (text, f"hil-usb: {text}"):
        try:
            event = parse_line(line)
        except ValueError:
            continue
        assert parse_line(format_line(event)) == event


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("attach busid=1-1", "has no 'hil-usb:'"),
        ("hil-usb:", "does not say what happened"),
        ("hil-usb: Attach", "does not say what happened"),
        ("hil-usb: attach busid", "'busid' is not one key=value"),
        ("hil-usb: attach a=1 a=2", "'a=2' is not one key=value"),
        ("hil-usb: attach a=%FF", "the value of a is no UTF-8"),
    ],
)
def test_a_wrong_line(line: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_line(line)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ValueError, match="'Bus Id' is no name"):
        format_line(UsbEvent("attach", {"Bus Id": ("1",)}))


def test_plain_facts() -> None:
    event = UsbEvent.of("urb-error", busid="1-1", status=-32, peer="", error=None, text="x" * 5000)
    assert set(event.facts) == {"busid", "status", "text"}
    assert event["status"] == "-32"
    assert len(event["text"]) == 1000


def test_only_our_lines_are_read() -> None:
    lines = ["login: ", f"noise {LINE}", "hil-usb: cut off=", "hil-usb: BROKEN", "hil-usb: list"]
    assert [event.what for event in parse_lines(lines)] == ["attach", "cut", "list"]


def test_readiness_is_waited_for_in_a_stream() -> None:
    read_end, write_end = os.pipe()
    with open(read_end) as stream, open(write_end, "w", buffering=1) as out:  # noqa: PTH123 - fds

        def say() -> None:
            out.write("hil-usb: plug busid=1-2\nhil-usb: attach busid=1-2\n")
            out.write(f"{LINE}\n")

        teller = threading.Thread(target=say)
        teller.start()
        assert wait_for_usb_ready(stream, busid="1-1", timeout=30) == ATTACH
        teller.join()


def test_what_was_seen_instead_of_readiness() -> None:
    failed = "hil-usb: attach-failed busid=1-1 error=no%20answer"
    with pytest.raises(NotSeen, match="waited for 1-1 to be ready, and it failed") as said:
        wait_for_usb_ready(["hil-usb: plug busid=1-1", failed, LINE], busid="1-1")
    assert f"  {failed}" in str(said.value)
    with pytest.raises(NotSeen, match="the lines ended; there was no event at all"):
        wait_for_usb_ready([])


def test_a_silent_stream() -> None:
    over = threading.Event()

    def lines() -> Iterator[str]:
        yield "hil-usb: plug busid=1-1"
        over.wait(60)

    with pytest.raises(NotSeen, match=r"waited 0\.2 s for a device to be ready; what was seen"):
        wait_for_usb_ready(lines(), timeout=0.2)
    over.set()


@pytest.mark.parametrize(
    "wish",
    [{}, {"vendor_id": 0x1209}, {"product_id": 3}, {"node": "/dev/ttyACM"}, {"busid": "1-1"}],
)
def test_what_is_attached(wish: dict[str, object]) -> None:
    assert assert_attached([LINE, "hil-usb: plug busid=1-2"], **wish) == ATTACH  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"vendor_id": 0x1234}, "no device is attached with vendor=0x1234; what was seen:\n  hil-"),
        ({"node": "/dev/sd"}, "no device is attached with node=/dev/sd; "),
        ({"busid": "1-2", "product_id": 3}, "with busid=1-2 product=0x0003; "),
    ],
)
def test_what_is_not_attached(wish: dict[str, object], said: str) -> None:
    with pytest.raises(AssertionError) as failed:
        assert_attached([ATTACH], **wish)  # type: ignore[arg-type]
    assert said in str(failed.value)


@pytest.mark.parametrize("what", ["detach", "lost", "released", "unplug"])
def test_what_is_gone_is_not_attached(what: str) -> None:
    gone = UsbEvent.of(what, busid="1-1")
    with pytest.raises(NotSeen):
        assert_attached([ATTACH, gone])
    assert assert_attached([ATTACH, gone, ATTACH]) == ATTACH
    # Of another exporter, whose bus ids are its own.
    assert assert_attached([ATTACH, UsbEvent.of(what, busid="1-1", remote="a:3240")]) == ATTACH
