"""XMODEM-CRC, XMODEM-1K and YMODEM, the sender's side. Bytes in, bytes out; no I/O, no clock.

Chuck Forsberg's "XMODEM/YMODEM Protocol Reference" (1988). The receiver leads: it asks for the
first block with ``C`` (for a CRC) or NAK (for a sum of one byte), and answers each with ACK or NAK.
YMODEM has a block 0 before the file, with its name and size, and an empty one after the last file.
"""

from __future__ import annotations

import binascii
from enum import Enum, auto
from typing import Literal

Protocol = Literal["xmodem", "xmodem-1k", "ymodem"]

SOH, STX, EOT, ACK, NAK, CAN, SUB = 0x01, 0x02, 0x04, 0x06, 0x15, 0x18, 0x1A
_CRC = ord("C")
_SMALL, _LARGE = 128, 1024

# How often one thing is said before the receiver is believed to be gone.
_TRIES = 10

GIVE_UP = bytes([CAN] * 8 + [0x08] * 8)
"""It cancels, and wipes what a shell may have taken of it for its input."""


class State(Enum):
    """What the sender waits for."""

    START = auto()
    """That somebody asks for the first block."""
    HEADER = auto()
    """The answer to YMODEM's block 0."""
    READY = auto()
    """That the file is asked for, after block 0."""
    BLOCK = auto()
    """The answer to a block of the file."""
    END = auto()
    """The answer to EOT."""
    NEXT = auto()
    """That YMODEM's next file is asked for: there is none."""
    LAST = auto()
    """The answer to that."""
    DONE = auto()
    FAILED = auto()


_ASKED = frozenset({State.START, State.READY, State.NEXT})


class Sender:
    """Sends one file. What :meth:`receive` and :meth:`silence` return is to be sent.

    ``error`` says why it FAILED. ``confirmed``: bytes of the file that the receiver has.
    """

    def __init__(self, data: bytes, *, name: str = "file", protocol: Protocol = "ymodem") -> None:
        self.state = State.START
        self.error = ""
        self.confirmed = 0
        self._data = data
        self._name = name
        self._protocol = protocol
        self._crc = True
        self._number = 1
        self._size = 0
        self._tries = 0
        self._said = b""
        self._cancels = 0

    @property
    def over(self) -> bool:
        return self.state in (State.DONE, State.FAILED)

    def receive(self, data: bytes) -> bytes:
        """What the receiver says: our answer to it. What is no word of the protocol is ignored."""
        answer = b""
        for byte in data:
            if self.over:
                break
            self._cancels = self._cancels + 1 if byte == CAN else 0
            if self._cancels == 2:
                return self._fail("the receiver has cancelled", b"")
            # Whatever else was said before it heard this is no answer to it.
            if said := self._heard(byte):
                answer = said
        return answer

    @property
    def patience(self) -> float:
        """Seconds until silence is worth a word. A receiver asks every few seconds."""
        return 10.0 if self.state not in (State.END, State.NEXT, State.LAST) else 4.0

    def silence(self) -> bytes:
        """Nothing came for a while: what was said last, once more."""
        if self.over:
            return b""
        if self.state in (State.NEXT, State.LAST) or (self.state is State.END and self._tries):
            # It has all blocks, and may be gone: lrzsz throws away the last thing that it says.
            return self._say(State.DONE, b"")
        return self._again("the receiver does not answer")

    def cancel(self) -> bytes:
        """Give it up."""
        return b"" if self.over else self._fail("cancelled", GIVE_UP)

    # --- one byte ---

    def _heard(self, byte: int) -> bytes:
        if self.state in _ASKED:
            return self._begin(byte) if byte in (_CRC, NAK) else b""
        if self.state is State.END and byte == _CRC and self._protocol == "ymodem":
            self.state = State.NEXT  # its ACK was lost
            return self._begin(byte)
        if byte == NAK:
            return self._again("the receiver refuses what it is sent")
        return self._go_on() if byte == ACK else b""

    def _begin(self, byte: int) -> bytes:
        """A file is asked for."""
        if self.state is State.START:
            self._crc = byte == _CRC
        if self.state is State.NEXT:
            return self._say(State.LAST, self._framed(0, bytes(_SMALL)))
        if self.state is State.START and self._protocol == "ymodem":
            return self._say(State.HEADER, self._framed(0, self._header()))
        return self._block()

    def _go_on(self) -> bytes:
        """What was said last has arrived."""
        match self.state:
            case State.HEADER:
                return self._say(State.READY, b"")
            case State.BLOCK:
                self.confirmed += self._size
                self._number += 1
                return self._block()
            case State.END if self._protocol == "ymodem":
                return self._say(State.NEXT, b"")
            case _:
                return self._say(State.DONE, b"")

    def _say(self, state: State, text: bytes) -> bytes:
        self.state = state
        self._said = text
        self._tries = 0
        return text

    def _again(self, why: str) -> bytes:
        self._tries += 1
        if self._tries > _TRIES:
            return self._fail(f"{why}, {_TRIES} times over", GIVE_UP)
        return self._said

    def _fail(self, why: str, text: bytes) -> bytes:
        self.state = State.FAILED
        self.error = f"{why}; it has confirmed {self.confirmed} of {len(self._data)} bytes"
        return text

    # --- blocks ---

    def _block(self) -> bytes:
        left = len(self._data) - self.confirmed
        if not left:
            return self._say(State.END, bytes([EOT]))
        large = self._protocol != "xmodem" and self._crc and left >= _LARGE
        self._size = min(left, _LARGE if large else _SMALL)
        piece = self._data[self.confirmed : self.confirmed + self._size]
        return self._say(State.BLOCK, self._framed(self._number % 256, piece))

    def _header(self) -> bytes:
        """The name, and the size in decimal."""
        name = self._name.encode(errors="replace").replace(b"\0", b"")[-96:]
        return (name + b"\0" + str(len(self._data)).encode()).ljust(_SMALL, b"\0")

    def _framed(self, number: int, piece: bytes) -> bytes:
        large = len(piece) > _SMALL
        body = piece.ljust(_LARGE if large else _SMALL, bytes([SUB]))
        head = bytes([STX if large else SOH, number, 255 - number])
        if self._crc:
            return head + body + binascii.crc_hqx(body, 0).to_bytes(2, "big")
        return head + body + bytes([sum(body) % 256])
