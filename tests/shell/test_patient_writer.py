"""A writer keeps its deadline and its framing, whoever reads, or does not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from pytest_hil.shell.patient_writer import Broken, Late, Writer

LARGE = b"x" * 5_000_000


@pytest.fixture
def pair() -> Iterator[tuple[Writer, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    writer = Writer(ours)
    with ours, theirs:
        yield writer, theirs
        writer.close()


def read(sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        data += sock.recv(size - len(data))
    return bytes(data)


def soon() -> float:
    return time.monotonic() + 0.05


def test_a_message_that_was_begun_is_ended_before_the_next(
    pair: tuple[Writer, socket.socket],
) -> None:
    writer, reader = pair
    with pytest.raises(Late) as late:
        writer.send(b"a" * len(LARGE), soon())
    assert late.value.begun
    with pytest.raises(Late) as late:
        writer.send(b"never", soon())
    assert not late.value.begun
    sender = threading.Thread(target=writer.send, args=(b"next", None))
    sender.start()
    assert read(reader, len(LARGE) + 4) == b"a" * len(LARGE) + b"next"
    sender.join()


def test_what_must_be_said_is_said_when_somebody_listens(
    pair: tuple[Writer, socket.socket],
) -> None:
    writer, reader = pair
    with pytest.raises(Late):
        writer.send(LARGE, soon())
    writer.send_or_keep(b"cancel")
    sender = threading.Thread(target=writer.send, args=(b"next", None))
    sender.start()
    assert read(reader, len(LARGE) + 10)[-10:] == b"cancelnext"
    sender.join()
    writer.send_or_keep(b"at once")
    assert read(reader, 7) == b"at once"


def test_waiting_for_another_writer_counts(pair: tuple[Writer, socket.socket]) -> None:
    writer, _reader = pair

    def stopped() -> None:
        with contextlib.suppress(Broken):
            writer.send(LARGE, None)

    first = threading.Thread(target=stopped)
    first.start()
    while not writer._lock.locked():
        time.sleep(0.001)
    with pytest.raises(Late) as late:
        writer.send(b"second", soon())
    assert not late.value.begun
    writer.stop()
    first.join()


def test_stop_and_resume(pair: tuple[Writer, socket.socket]) -> None:
    writer, reader = pair
    writer.stop()
    with pytest.raises(Broken) as broken:
        writer.send(LARGE, None)
    assert broken.value.begun
    writer.resume()
    sender = threading.Thread(target=writer.send, args=(b"next", None))
    sender.start()
    assert read(reader, len(LARGE) + 4).endswith(b"xnext")
    sender.join()


def test_a_closed_peer(pair: tuple[Writer, socket.socket]) -> None:
    writer, reader = pair
    reader.close()
    with pytest.raises(Broken) as broken:
        writer.send(b"x", None)
    assert not broken.value.begun


def test_after_close(pair: tuple[Writer, socket.socket]) -> None:
    writer, _reader = pair
    writer.close()
    writer.close()
    writer.stop()
    with pytest.raises(Broken):
        writer.send(b"x", None)
