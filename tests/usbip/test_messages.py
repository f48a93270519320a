"""Every message: packed and parsed it is the same; whatever else comes is one typed error."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.usbip import messages as m

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
sizes = st.integers(0, 2**31 - 1)
i32 = st.integers(-(2**31), 2**31 - 1)
statuses = st.integers(-4096, 0)
words = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=31)
interfaces = st.builds(m.Interface, u8, u8, u8)
devices = st.builds(
    lambda found, **more: m.Device(interfaces=tuple(found), interface_count=len(found), **more),
    st.lists(interfaces, max_size=5),
    busid=words,
    path=words,
    busnum=u16,
    devnum=u16,
    speed=st.sampled_from(m.Speed),
    vendor_id=u16,
    product_id=u16,
    bcd_device=u16,
    device_class=u8,
    subclass=u8,
    protocol=u8,
    configuration_value=u8,
    configurations=u8,
)


@given(devices)
def test_devices(device: m.Device) -> None:
    data, more = device.pack(), device.pack_interfaces()
    assert (len(data), len(more)) == (m.DEVICE_SIZE, 4 * len(device.interfaces))
    assert m.Device.parse(data, more) == device


@given(words)
def test_import_requests(busid: str) -> None:
    data = m.ReqImport(busid).pack()
    assert len(data) == m.OP_SIZE + m.BUSID_SIZE
    m.OpHeader.parse(data).expect(m.Code.REQ_IMPORT)
    assert m.ReqImport.parse(data[m.OP_SIZE :]).busid == busid


@given(
    st.builds(
        m.Submit,
        seqnum=u32,
        devid=u32,
        direction=st.just(m.Direction.IN),
        endpoint=st.integers(0, 15),
        length=sizes,
        setup=st.binary(min_size=8, max_size=8),
        flags=u32,
        start_frame=i32,
        packets=i32,
        interval=i32,
    )
)
def test_submits(submit: m.Submit) -> None:
    data = submit.pack()
    assert len(data) == m.URB_SIZE
    assert m.command_of(data) == m.Command.SUBMIT
    assert m.Submit.parse(data) == submit


@given(st.builds(m.RetSubmit, u32, statuses, sizes, start_frame=i32, packets=i32, errors=i32))
def test_submit_replies(reply: m.RetSubmit) -> None:
    data = reply.pack()
    assert data[8:20] == bytes(12), "device, direction and endpoint are 0 in replies"
    assert m.RetSubmit.parse(data) == reply


@given(st.builds(m.Unlink, u32, u32, u32, st.sampled_from(m.Direction), st.integers(0, 15)))
def test_unlinks(unlink: m.Unlink) -> None:
    assert m.Unlink.parse(unlink.pack()) == unlink


@given(st.builds(m.RetUnlink, u32, statuses))
def test_unlink_replies(reply: m.RetUnlink) -> None:
    assert m.RetUnlink.parse(reply.pack()) == reply


@given(st.lists(st.builds(m.IsoPacket, st.integers(0, 999), st.integers(0, 1), st.just(0), i32)))
def test_packets(packets: list[m.IsoPacket]) -> None:
    data = m.pack_packets(packets)
    assert m.IsoPacket.parse_all(data, 1000) == tuple(packets)


@given(st.binary(min_size=m.DEVICE_SIZE + 8, max_size=m.DEVICE_SIZE + 8))
def test_any_bytes_are_a_message_or_one_error(data: bytes) -> None:
    for parse in (
        m.Device.parse,
        m.ReqImport.parse,
        m.Submit.parse,
        m.Unlink.parse,
        m.RetSubmit.parse,
        m.RetUnlink.parse,
        m.RepDevlist.parse_count,
        lambda some: m.IsoPacket.parse_all(some[:64], 4096),
        lambda some: m.OpHeader.parse(some).expect(m.Code.REQ_IMPORT),
    ):
        with contextlib.suppress(m.Malformed):
            parse(data)


@pytest.mark.parametrize(
    ("offset", "value", "fault"),
    [
        (12, "00000002", m.Fault.DIRECTION),
        (16, "00000010", m.Fault.ENDPOINT),
        (24, "ffffffff", m.Fault.LENGTH),
        (24, "7fffffff", m.Fault.LENGTH),
    ],
)
def test_wrong_fields(offset: int, value: str, fault: m.Fault) -> None:
    good = bytearray(m.Submit(1, 2, m.Direction.OUT, 3, 4, data=b"1234").pack()[: m.URB_SIZE])
    good[offset : offset + 4] = bytes.fromhex(value)
    with pytest.raises(m.Malformed) as caught:
        m.Submit.parse(good)
    assert caught.value.fault is fault
    assert caught.value.data == bytes(good)


def test_names_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="has no place in 31 bytes"):
        m.ReqImport("x" * 32).pack()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("host", ("host", 3240)),
        ("10.0.0.1:99", ("10.0.0.1", 99)),
        ("[::1]:99", ("::1", 99)),
        ("[fe80::1]", ("fe80::1", 3240)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert m.parse_address(text) == address


@pytest.mark.parametrize("text", ["", ":1", "a:b", "a:0", "a:65536", "::1", "a:1:2", "[::1"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match=r"write HOST, HOST:PORT or \[IPV6\]:PORT"):
        m.parse_address(text)
