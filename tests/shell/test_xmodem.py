"""X- and YMODEM without a line: what the sender says to what it hears."""

from __future__ import annotations

import binascii

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_hil.shell.xmodem import ACK, CAN, EOT, GIVE_UP, NAK, SOH, STX, SUB, Sender, State


def crc(body: bytes) -> bytes:
    return binascii.crc_hqx(body, 0).to_bytes(2, "big")


def test_xmodem() -> None:
    sender = Sender(b"x" * 129, protocol="xmodem")
    assert sender.receive(b"## Ready for it\r\n") == b""
    first = b"x" * 128
    assert sender.receive(b"C") == bytes([SOH, 1, 254]) + first + crc(first)
    second = b"x" + bytes([SUB] * 127)
    assert sender.receive(bytes([ACK])) == bytes([SOH, 2, 253]) + second + crc(second)
    assert sender.confirmed == 128
    assert sender.receive(bytes([ACK])) == bytes([EOT])
    assert sender.receive(bytes([NAK])) == bytes([EOT])
    assert not sender.over
    assert sender.receive(bytes([ACK])) == b""
    assert sender.state is State.DONE
    assert sender.confirmed == 129


def test_a_receiver_without_a_crc() -> None:
    sender = Sender(b"\xff" * 3000, protocol="xmodem-1k")
    assert sender.receive(bytes([NAK])) == bytes([SOH, 1, 254]) + b"\xff" * 128 + b"\x80"


def test_xmodem_1k() -> None:
    sender = Sender(b"y" * 1025, protocol="xmodem-1k")
    said = sender.receive(b"C")
    assert said == bytes([STX, 1, 254]) + b"y" * 1024 + crc(b"y" * 1024)
    assert sender.receive(bytes([ACK]))[:3] == bytes([SOH, 2, 253])


def test_ymodem() -> None:
    sender = Sender(b"z" * 200, name="boot.img", protocol="ymodem")
    header = b"boot.img\x00200".ljust(128, b"\0")
    # It has asked three times before it was heard.
    assert sender.receive(b"CCC") == bytes([SOH, 0, 255]) + header + crc(header)
    assert sender.receive(bytes([ACK])) == b""
    assert sender.receive(b"C")[:3] == bytes([SOH, 1, 254])
    assert sender.receive(bytes([NAK]))[:3] == bytes([SOH, 1, 254])
    assert sender.receive(bytes([ACK]))[:3] == bytes([SOH, 2, 253])
    assert sender.receive(bytes([ACK])) == bytes([EOT])
    assert sender.receive(bytes([ACK])) == b""
    nothing = bytes(128)
    assert sender.receive(b"C") == bytes([SOH, 0, 255]) + nothing + crc(nothing)
    assert sender.receive(bytes([ACK])) == b""
    assert sender.state is State.DONE


def test_block_numbers_begin_anew() -> None:
    sender = Sender(bytes(128 * 300), protocol="xmodem")
    numbers = [sender.receive(b"C")[1]] + [sender.receive(bytes([ACK]))[1] for _ in range(299)]
    assert numbers == [number % 256 for number in range(1, 301)]


def test_two_cancels_end_it_and_one_is_noise() -> None:
    sender = Sender(b"x")
    assert sender.receive(bytes([CAN]) + b"C")
    assert sender.receive(bytes([CAN, CAN])) == b""
    assert sender.state is State.FAILED
    assert sender.error == "the receiver has cancelled; it has confirmed 0 of 1 bytes"
    assert sender.receive(b"C") == sender.silence() == sender.cancel() == b""


@pytest.mark.parametrize("silent", [True, False])
def test_nobody_has_patience_for_ever(silent: bool) -> None:
    sender = Sender(b"x", protocol="xmodem")
    block = sender.receive(b"C")
    for _ in range(10):
        assert (sender.silence() if silent else sender.receive(bytes([NAK]))) == block
    assert (sender.silence() if silent else sender.receive(bytes([NAK]))) == GIVE_UP
    assert "10 times over" in sender.error
    # Each block has its own tries.
    sender = Sender(b"x" * 200, protocol="xmodem")
    sender.receive(b"C")
    for _ in range(2):
        for _ in range(10):
            sender.silence()
        sender.receive(bytes([ACK]))
    assert not sender.over


def test_a_receiver_that_leaves_without_a_word() -> None:
    """The file has arrived: nothing is said to whoever is there now."""
    for protocol_words in ([], [b"C"]):
        sender = Sender(b"x", protocol="ymodem")
        sender.receive(b"C")
        for word in (b"\x06C", b"\x06", b"\x06", *protocol_words):
            sender.receive(word)
        assert not sender.over
        assert sender.silence() == b""
        assert sender.state is State.DONE


def test_cancel() -> None:
    sender = Sender(b"x")
    assert sender.cancel() == GIVE_UP
    assert sender.state is State.FAILED


@given(st.lists(st.binary(max_size=20)), st.sampled_from(["xmodem", "xmodem-1k", "ymodem"]))
def test_whatever_comes(pieces: list[bytes], protocol: str) -> None:
    """It ends, or says something of a known form, and never confirms more than there is."""
    sender = Sender(b"x" * 5000, protocol=protocol)  # type: ignore[arg-type]
    for piece in pieces:
        said = sender.receive(piece) or sender.silence()
        assert said in (b"", bytes([EOT]), GIVE_UP) or len(said) in (132, 133, 1028, 1029)
        assert sender.confirmed <= 5000
        assert (sender.state is State.FAILED) == bool(sender.error)
