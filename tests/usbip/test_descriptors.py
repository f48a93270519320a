"""Configurations: what is packed is parsed again, and nonsense is one typed error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.usbip.descriptors import (
    Association,
    Configuration,
    DescriptorError,
    EndpointDescriptor,
    InterfaceDescriptor,
    parse_configuration,
)

BYTE = st.integers(0, 0xFF)
# Whatever a class puts there: CS_INTERFACE, CS_ENDPOINT (USB Audio 1.0, table A-4).
CLASS_SPECIFIC = st.lists(
    st.tuples(st.sampled_from([0x24, 0x25]), st.binary(max_size=12)).map(
        lambda one: bytes([2 + len(one[1]), one[0]]) + one[1]
    ),
    max_size=2,
).map(b"".join)
ENDPOINTS = st.builds(
    EndpointDescriptor,
    st.tuples(st.integers(1, 15), st.sampled_from([0, 0x80])).map(lambda one: one[0] | one[1]),
    BYTE,
    st.integers(0, 0xFFFF),
    BYTE,
    extra=CLASS_SPECIFIC,
    tail=st.sampled_from([b"", b"\1\2"]),
)


@st.composite
def configurations(draw: st.DrawFn) -> Configuration:
    interfaces = [
        draw(
            st.builds(
                InterfaceDescriptor,
                number=st.just(number),
                alternate=st.just(alternate),
                interface_class=BYTE,
                subclass=BYTE,
                protocol=BYTE,
                extra=CLASS_SPECIFIC,
                endpoints=st.lists(ENDPOINTS, max_size=3).map(tuple),
            )
        )
        for number in range(draw(st.integers(1, 3)))
        for alternate in range(draw(st.integers(1, 2)))
    ]
    # Packed after what stood before it, an association would end in that: one, at the beginning.
    first = draw(st.lists(st.builds(Association, st.just(0), BYTE, BYTE, BYTE, BYTE), max_size=1))
    return Configuration(
        tuple(interfaces),
        draw(BYTE),
        draw(BYTE),
        draw(BYTE),
        associations=tuple(first),
        extra=draw(CLASS_SPECIFIC),
    )


@given(configurations())
def test_there_and_back(configuration: Configuration) -> None:
    assert parse_configuration(configuration.pack()) == configuration


@given(configurations(), st.data())
def test_one_wrong_byte(configuration: Configuration, data: st.DataObject) -> None:
    wrong = bytearray(configuration.pack())
    where = data.draw(st.integers(0, len(wrong) - 1))
    wrong[where] ^= data.draw(st.integers(1, 0xFF))
    with contextlib.suppress(DescriptorError):
        parse_configuration(wrong)


@given(st.binary(max_size=64))
def test_nonsense(data: bytes) -> None:
    with contextlib.suppress(DescriptorError):
        parse_configuration(data)
    with contextlib.suppress(DescriptorError):
        parse_configuration(b"\x09\x02" + (9 + len(data)).to_bytes(2, "little") + bytes(5) + data)


def test_what_is_wrong_is_said() -> None:
    good = Configuration((InterfaceDescriptor(0, 0, 0xFF, 0, 0),)).pack()
    with pytest.raises(DescriptorError, match="wTotalLength is 18, its own length 9, and 17 bytes"):
        parse_configuration(good[:-1])
    with pytest.raises(DescriptorError, match="bNumInterfaces is 2, and 1 are there"):
        parse_configuration(good[:4] + b"\2" + good[5:])
