"""The host's half of a session with an agent: bytes in, events out."""

from __future__ import annotations

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import HEADER_SIZE, Decoder
from pytest_hil.agent.protocol import NONCE_SIZE, Event, HelloOk
from pytest_hil.errors import ProtocolError


class Session:
    """Finds the answer to HELLO in whatever comes, then tells what the agent says.

    Between :meth:`start` and that answer everything else is discarded: it was meant for
    somebody else. After it, bytes that are no frame are an error, and so is everything
    until the next :meth:`start`.
    """

    def __init__(self) -> None:
        self._nonce = b""
        self._decoder: Decoder | None = None
        self._tail = b""

    def start(self, nonce: bytes) -> None:
        """HELLO with this nonce has been, or is about to be, sent."""
        self._nonce = nonce
        self._decoder = None
        self._tail = b""

    def feed(self, data: bytes) -> list[Event]:
        """What the agent said. Raises ProtocolError, and then says nothing until start()."""
        if self._decoder is None:
            data = self._search(data)
        if self._decoder is None:
            return []
        events: list[Event] = []
        try:
            for frame in self._decoder.feed(data):
                event = protocol.parse(frame)
                if isinstance(event, HelloOk) and event.nonce != self._nonce:
                    continue  # an older HELLO's answer
                events.append(event)
            if self._decoder.skipped or self._decoder.damaged:
                raise ProtocolError(
                    f"the agent sent {self._decoder.skipped} bytes that are no frame and "
                    f"{self._decoder.damaged} damaged frames"
                )
        except ProtocolError:
            self.start(b"")
            raise
        return events

    def _search(self, data: bytes) -> bytes:
        """Look for the nonce; once it is there, what begins with the frame that holds it."""
        if not self._nonce:
            return b""
        data = self._tail + data
        found = data.find(self._nonce, HEADER_SIZE)
        if found < 0:
            # Enough that a frame whose nonce is not whole yet is found with its header.
            self._tail = data[-(HEADER_SIZE + NONCE_SIZE - 1) :]
            return b""
        self._tail = b""
        self._decoder = Decoder()
        return data[found - HEADER_SIZE :]
