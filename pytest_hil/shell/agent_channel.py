"""The channel to an agent: a socket, one thread that reads it, and the operations under way."""

from __future__ import annotations

import contextlib
import itertools
import os
import queue
import socket
import threading
import time
from collections.abc import Callable

from pytest_hil.agent import protocol
from pytest_hil.agent.protocol import Data, Done, Entry, Event, Exit, Failed, HelloOk, Ready
from pytest_hil.agent.session import Session
from pytest_hil.console.interruption import Interruption
from pytest_hil.errors import (
    ChannelLost,
    HilError,
    InfrastructureError,
    OutcomeUnknown,
    ProtocolError,
)
from pytest_hil.shell.patient_writer import Late, Unsent, Writer, remaining

_READ_SIZE = 256 * 1024
_FIRST_PATIENCE = 0.5
"""Seconds until HELLO is said again; then twice as long each time."""

OnLost = Callable[[InfrastructureError], HilError | None]


class Operation:
    """Something the agent was asked to do. Leaving the context before its end cancels it."""

    def __init__(self, channel: Channel, number: int, what: str, credit: int) -> None:
        self._channel = channel
        self.number = number
        self.what = what
        # None: something may have come that is not of the agent; see Interruption.
        self.events: queue.SimpleQueue[Event | HilError | None] = queue.SimpleQueue()
        self.sent = False
        self.ended = False
        # Each is written by one thread only: the reader's and the caller's.
        self.received = 0
        self.granted = credit

    def send(self, frames: bytes, deadline: float | None) -> None:
        """Raises Late, or why the channel cannot be used."""
        self._channel.send(self, frames, deadline)

    def grant(self, size: int, deadline: float | None) -> None:
        """Let the agent send so many bytes more."""
        self.granted += size
        self.send(protocol.credit(self.number, size), deadline)

    def next(self, deadline: float | None) -> Event:
        """What the agent says next about it. Raises Late, why the channel is lost, or an
        interruption.
        """
        event = None
        while event is None:
            self._channel.check_interruption()
            try:
                event = self.events.get(timeout=remaining(deadline))
            except queue.Empty:
                raise Late from None
        if isinstance(event, HilError):
            raise event
        return event

    def cancel(self) -> None:
        """Tell the agent to end it: now, or when it listens again."""
        self._channel.cancel(self)

    def __enter__(self) -> Operation:
        return self

    def __exit__(self, *exc: object) -> None:
        if not self.ended:
            if self.sent:
                self.cancel()
            self._channel.forget(self)


class Channel:
    """Owns the socket. Safe to use from several threads."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        name: str,
        on_lost: OnLost | None = None,
        interruption: Interruption | None = None,
    ) -> None:
        self.name = name
        self.on_lost = on_lost
        self._interruption = interruption
        self.lost = threading.Event()
        self._sock = sock
        self._sock.setblocking(True)
        self._session = Session()
        self._lock = threading.Lock()  # of what follows
        self._numbers = itertools.count(1)
        self._operations: dict[int, Operation] = {}
        self._answer: queue.SimpleQueue[HelloOk | HilError] | None = None
        self._unusable: HilError | None = ProtocolError(
            f"{name}: nothing can be asked before hello()"
        )
        self._closing = False
        self._writer = Writer(sock)
        self._hello_lock = threading.Lock()
        if interruption is not None:
            interruption.on_change(self._wake)
        self._reader = threading.Thread(target=self._read, name=f"hil-agent-{name}", daemon=True)
        self._reader.start()

    @property
    def reason(self) -> HilError | None:
        """Why it cannot be used at present; None: it can."""
        return self._unusable

    def check_interruption(self) -> None:
        """Raise what has happened on the target, if anything has."""
        if self._interruption is not None:
            self._interruption.check()

    def _wake(self) -> None:
        with self._lock:
            for operation in self._operations.values():
                operation.events.put(None)

    # --- the handshake ---

    def hello(self, timeout: float) -> HelloOk:
        """Begin a new session; operations of the one before end with OutcomeUnknown.

        Raises ChannelLost when nobody answers within ``timeout`` seconds or the channel ended.
        """
        with self._hello_lock:
            deadline = time.monotonic() + timeout
            nonce = os.urandom(protocol.NONCE_SIZE)
            answers = self._expect_answer(nonce)
            patience = _FIRST_PATIENCE
            self._say_hello(protocol.hello(nonce), deadline)
            while True:
                wait = min(patience, max(0.0, deadline - time.monotonic()))
                try:
                    answer = answers.get(timeout=wait)
                    break
                except queue.Empty:
                    if time.monotonic() >= deadline:
                        raise ChannelLost(
                            f"{self.name}: the agent did not answer within {timeout:g} s"
                        ) from None
                # It may have been frozen inside a frame, or died with our first HELLO unread.
                self._say_hello(protocol.hello(nonce, padding=True), time.monotonic())
                patience *= 2
        if isinstance(answer, HilError):
            raise answer
        return answer

    def _expect_answer(self, nonce: bytes) -> queue.SimpleQueue[HelloOk | HilError]:
        with self._lock:
            if self.lost.is_set() and self._unusable is not None:
                raise self._unusable
            self._end_operations(ChannelLost(f"{self.name}: a new session was begun"))
            self._session.start(nonce)
            self._answer = queue.SimpleQueue()
            self._unusable = ProtocolError(f"{self.name}: nothing can be asked before hello()")
            self._writer.resume()
            return self._answer

    def _say_hello(self, frame: bytes, deadline: float) -> None:
        with contextlib.suppress(Unsent):
            self._writer.send(frame, deadline)

    # --- operations ---

    def operation(self, what: str, *, credit: int = 0) -> Operation:
        """A new one; ``what`` names it in errors. Raises why the channel cannot be used."""
        with self._lock:
            if self._unusable is not None:
                raise ChannelLost(
                    f"{what}: not sent: {self._unusable.message}", mend=self._unusable.mend
                ) from self._unusable
            number = next(self._numbers) & 0xFFFFFFFF
            operation = Operation(self, number, what, credit)
            self._operations[number] = operation
            return operation

    def forget(self, operation: Operation) -> None:
        with self._lock:
            self._operations.pop(operation.number, None)

    def fail(self, error: HilError) -> None:
        """End all that wait with this error; nothing can be asked until hello() succeeds."""
        with self._lock:
            self._fail(error, given=True)

    def _fail(self, error: HilError, *, given: bool = False) -> None:
        self._unusable = error
        self._session.start(b"")
        self._writer.stop()
        if self._answer is not None:
            self._answer.put(error)
            self._answer = None
        self._end_operations(error, given=given)

    def _end_operations(self, error: HilError, *, given: bool = False) -> None:
        for operation in self._operations.values():
            operation.ended = True
            operation.events.put(error if given else _outcome(operation, error))
        self._operations.clear()

    # --- writing ---

    def send(self, operation: Operation, frames: bytes, deadline: float | None) -> None:
        """All of it, or Late.

        When the channel breaks it just returns: the reader sees it too, knows why, and has told
        the operation; so it is when the operation has ended otherwise.
        """
        if operation.ended:
            return
        before, operation.sent = operation.sent, True
        try:
            self._writer.send(frames, deadline)
        except Unsent as why:
            operation.sent = before or why.begun
            if isinstance(why, Late):
                raise

    def cancel(self, operation: Operation) -> None:
        if not operation.ended:
            self._writer.send_or_keep(protocol.cancel(operation.number))

    # --- reading ---

    def _read(self) -> None:
        buffer = bytearray(_READ_SIZE)
        view = memoryview(buffer)
        while True:
            try:
                size = self._sock.recv_into(buffer)
            except OSError as broken:
                self._ended(f"the channel broke: {broken.strerror}")
                return
            if not size:
                self._ended("the channel was closed")
                return
            with self._lock:
                try:
                    for event in self._session.feed(bytes(view[:size])):
                        self._dispatch(event)
                except ProtocolError as wrong:
                    self._fail(ProtocolError(f"{self.name}: {wrong.message}", mend=wrong.mend))

    def _ended(self, why: str) -> None:
        reason = ChannelLost(f"{self.name}: {why}")
        better = None
        try:
            if self.on_lost is not None and not self._closing:
                better = self.on_lost(reason)
        finally:  # whatever it does, nobody waits for ever
            with self._lock:
                self._fail(better or reason, given=better is not None)
                self.lost.set()

    def _dispatch(self, event: Event) -> None:
        if isinstance(event, HelloOk):
            self._greeted(event)
            return
        if isinstance(event, Ready):
            raise ProtocolError("the agent was restarted")
        operation = self._operations.get(event.operation)
        if operation is None:
            return  # it was given up
        if isinstance(event, Data | Entry):
            operation.received += cost(event)
            if operation.received > operation.granted:
                raise ProtocolError("the agent sent more than it may")
        elif isinstance(event, Done | Exit | Failed):
            operation.ended = True
            del self._operations[event.operation]
        operation.events.put(event)

    def _greeted(self, event: HelloOk) -> None:
        if self._answer is None:
            return
        if event.version != protocol.VERSION:
            raise ProtocolError(
                f"the agent speaks version {event.version} of the protocol, "
                f"this pytest-hil version {protocol.VERSION}",
                mend="rebuild the image: pytest-hil image build",
            )
        self._unusable = None
        self._answer.put(event)
        self._answer = None

    def close(self) -> None:
        """End everything. May be called twice."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join()
        self._writer.close()
        self._sock.close()


def cost(event: Data | Entry) -> int:
    """What it takes from the agent's credit."""
    return len(event.payload) if isinstance(event, Data) else protocol.ENTRY_COST


def _outcome(operation: Operation, reason: HilError) -> HilError:
    if operation.sent:
        return OutcomeUnknown(
            f"{operation.what}: it was sent and its answer was lost: {reason.message}"
        )
    return ChannelLost(f"{operation.what}: not sent: {reason.message}")
