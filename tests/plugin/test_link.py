"""What workers say reaches the controller, and only what they say."""

from __future__ import annotations

import socket

from pytest_hil.plugin.link import Listener, Message, Sender


def test_messages_arrive_in_order() -> None:
    heard: list[Message] = []
    listener = Listener(heard.append)
    sender = Sender(listener.name, "gw3")
    for number in range(5):
        sender.send("status", f"line {number}")
    sender.send("say", "\U0001f600" * 5000)
    sender.close()
    listener.close()
    assert [m.text for m in heard[:5]] == [f"line {n}" for n in range(5)]
    assert heard[5] == Message("gw3", "say", "\U0001f600" * 300)


def test_nonsense_is_not_heard() -> None:
    heard: list[Message] = []
    listener = Listener(heard.append)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(f"\0{listener.name}")
        for data in (
            *(b"x", b"{}", b"[1]", b'"text"', b"\xff\xfe", b"9" * 5000, b"null"),
            b'{"worker": 1, "kind": "status", "text": "x"}',
            b'{"worker": "a", "kind": "other", "text": "x"}',
            b'{"worker": "a", "kind": "status", "text": null}',
        ):
            stranger.send(data)
        stranger.send(b'{"worker": "gw0", "kind": "status", "text": "fine"}')
    listener.close()
    assert heard == [Message("gw0", "status", "fine")]


def test_nobody_listens() -> None:
    listener = Listener(lambda _message: None)
    sender = Sender(listener.name, "gw0")
    listener.close()
    sender.send("status", "into the void")
    sender.close()
    late = Sender(listener.name, "gw1")
    late.send("status", "into the void")
    late.close()


def test_a_sender_never_waits() -> None:
    # A socket that nobody reads: its queue is soon full.
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind("\0pytest-hil-test-of-a-deaf-one")
        sender = Sender("pytest-hil-test-of-a-deaf-one", "gw0")
        for _ in range(10_000):
            sender.send("status", "x" * 900)
        sender.close()
