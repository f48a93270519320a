"""The loopback device, as an exporter asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from pytest_hil.usbip.device import VirtualDevice
from pytest_hil.usbip.messages import SHUTDOWN, STALL
from pytest_hil.usbip.virtual.vendor import Loopback

if TYPE_CHECKING:
    from tests.usbip.conftest import Asker

    Ask = Callable[[VirtualDevice], Asker]


@pytest.fixture
def asker(ask: Ask) -> Asker:
    found = ask(Loopback())
    found.configure()
    return found


@pytest.mark.parametrize("endpoint", [1, 2])
def test_what_goes_out_comes_back(asker: Asker, endpoint: int) -> None:
    early = asker.submit(0x80 | endpoint, length=64)
    for data in (b"one", b"", b"three"):
        asker.submit(endpoint, data=data)
    late = [asker.submit(0x80 | endpoint, length=64) for _ in range(2)]
    got = [asker.ended[urb.seqnum] for urb in (early, *late)]
    assert got == [(0, b"one", 3), (0, b"", 0), (0, b"three", 5)]


def test_a_full_loop_lets_the_sender_wait(asker: Asker) -> None:
    sent = [asker.submit(1, data=bytes(2**20)) for _ in range(6)]
    assert [urb.seqnum in asker.ended for urb in sent] == [True] * 4 + [False] * 2
    asker.submit(0x81, length=2**20)
    assert [urb.seqnum in asker.ended for urb in sent] == [True] * 5 + [False]
    asker.device.cancel(sent[5])
    for _ in range(5):
        asker.submit(0x81, length=2**20)
    assert sent[5].seqnum not in asker.ended


def test_sink_and_source(asker: Asker) -> None:
    asker.submit(4, data=bytes(1000))
    device = asker.device
    assert isinstance(device, Loopback)
    assert device.swallowed == 1000
    data = asker.ended[asker.submit(0x84, length=130).seqnum][1]
    assert data == (bytes(range(63)) * 3)[:130]


def test_the_control_buffer(asker: Asker) -> None:
    assert asker.control(0x40, 0x5B, data=b"kept")[0] == 0
    assert asker.control(0xC0, 0x5C, data=4096)[1] == b"kept"
    assert asker.control(0xC0, 0x5C, 1, data=4)[0] == STALL
    assert asker.control(0xC0, 0x5D, data=4)[0] == STALL


def test_another_setting_begins_anew(asker: Asker) -> None:
    waiting = asker.submit(0x81, length=8)
    assert asker.control(1, 11, 1, 0, data=0)[0] == 0
    assert asker.ended[waiting.seqnum][0] == SHUTDOWN
    asker.submit(1, data=b"x")
    assert asker.ended[asker.submit(0x81, length=8).seqnum][1] == b"x"
