"""Faults on purpose, through a real exporter and importer."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from pytest_hil.errors import ChannelLost, ConfigError
from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.faults import (
    Faulty,
    Injected,
    UsbFault,
    corrupt,
    delay,
    disconnect,
    drop,
    short,
    stall,
)
from pytest_hil.usbip.importer import Importer
from pytest_hil.usbip.messages import STALL, UNLINKED, IsoPacket
from pytest_hil.usbip.virtual.vendor import Loopback


@contextmanager
def used(*faults: UsbFault, seed: int = 0) -> Iterator[tuple[Importer, Faulty]]:
    faulty = Faulty(Loopback(), faults, seed=seed)
    with Exporter() as exporter:
        exporter.plug(faulty)
        with Importer(exporter.address, "1-1") as device:
            assert device.control(0, 9, 1).status == 0
            yield device, faulty


def test_the_third_transfer_of_an_endpoint_stalls() -> None:
    with used(stall(endpoint=0x84, nth=3)) as (device, faulty):
        assert device.write(4, b"x").status == 0
        assert [device.read(4, 8).status for _ in range(5)] == [0, 0, STALL, 0, 0]
        assert faulty.injected == [Injected("stall", 0x84, 3)]


def test_every_second_one_twice_at_most() -> None:
    with used(stall(every=2, count=2)) as (device, _faulty):
        assert [device.read(4, 8).status for _ in range(8)] == [0, STALL, 0, STALL, 0, 0, 0, 0]


def test_a_delay() -> None:
    with used(delay(0.2, endpoint=0x84, nth=1)) as (device, _faulty):
        began = time.monotonic()
        assert device.read(4, 8).actual == 8
        assert time.monotonic() - began >= 0.2
        waiting = device.submit(0x81, length=8)
        assert waiting.cancel().status == UNLINKED


def test_a_delayed_transfer_is_given_up() -> None:
    with used(delay(60, endpoint=0x84)) as (device, _faulty):
        assert device.submit(0x84, length=8).cancel().status == UNLINKED


def test_one_that_is_dropped_never_ends() -> None:
    with used(drop(endpoint=0x84, nth=1)) as (device, _faulty):
        with pytest.raises(TimeoutError):
            device.read(4, 8, timeout=0.05)
        assert device.read(4, 8).actual == 8


def test_one_that_is_short() -> None:
    with used(short(3, endpoint=0x84, nth=1), short(2, endpoint=4, nth=1)) as (device, _faulty):
        assert bytes(device.read(4, 8).data) == b"\0\1\2"
        assert device.write(4, b"12345").actual == 2
        assert device.read(4, 8).actual == 8


def test_isochronous_packets_that_are_short() -> None:
    with used(short(3, endpoint=0x03, nth=1)) as (device, _faulty):
        device.control(1, 11, 1)
        packets = [IsoPacket(0, 2), IsoPacket(2, 2), IsoPacket(4, 2)]
        ended = device.submit(0x03, data=b"abcdef", iso=packets).wait(10)
        assert [one.actual for one in ended.iso] == [2, 1, 0]


def test_one_bit_is_wrong() -> None:
    with used(corrupt(endpoint=0x81, nth=1), corrupt(endpoint=1, nth=2)) as (device, _faulty):
        for wrong in (1, 1, 0):
            device.write(1, bytes(64))
            data = bytes(device.read(1, 64).data)
            assert sum(byte.bit_count() for byte in data) == wrong


def test_the_device_goes_away_in_the_middle() -> None:
    with used(disconnect(endpoint=0x84, nth=2)) as (device, _faulty):
        assert device.read(4, 8).actual == 8
        with pytest.raises(ChannelLost):
            device.read(4, 8)


def pattern(seed: int) -> list[int]:
    with used(stall(probability=0.5, endpoint=0x84), seed=seed) as (device, faulty):
        found = [device.read(4, 8).status for _ in range(40)]
        assert len(faulty.injected) == found.count(STALL)
        return found


def test_chance_is_the_seed_and_nothing_else() -> None:
    one = pattern(1)
    assert one == pattern(1)
    assert one != pattern(2)
    assert 5 < one.count(STALL) < 35


def test_enumeration_is_left_alone_unless_it_is_meant() -> None:
    with used(stall()) as (device, _faulty):
        assert device.control(0x80, 6, 0x0100, data=18).actual == 18
        assert device.read(4, 8).status == STALL
    with used(stall(endpoint=0x80, nth=1)) as (device, _faulty):
        assert device.control(0x80, 6, 0x0100, data=18).status == STALL


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stall(nth=0), r"stall\(\): nth is 0; it counts from 1"),
        (lambda: drop(probability=1.5), r"drop\(\): probability is 1\.5; 0 to 1"),
        (lambda: drop(endpoint=0x181), r"endpoint is 0x181; an address is"),
        (lambda: delay(-1), "less than nothing"),
    ],
)
def test_faults_that_cannot_be(make: Callable[[], Sequence[UsbFault]], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
