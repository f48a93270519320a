"""Two connections made one: what one side says, the other hears."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading

_SIZE = 256 * 1024


class Relay:
    """Carries bytes between two stream sockets until both have ended, or one broke.

    It owns both. At most ``_SIZE`` bytes lie here for each side: who does not read, stops the
    other. The end of one side's words is passed on as just that (half a close).
    """

    def __init__(self, one: socket.socket, other: socket.socket) -> None:
        self._ends = (one, other)
        for end in self._ends:
            end.setblocking(False)
            with contextlib.suppress(OSError):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._ways = (_Way(one, other), _Way(other, one))
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="hil-usb-relay", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake, selectors.EVENT_READ)
            try:
                while self._watch(selector):
                    ready = {key.fileobj for key, _events in selector.select()}
                    if self._wake in ready:
                        break
                    for way in self._ways:
                        way.move()
            except OSError:
                pass  # one of them is gone: the other is closed
            finally:
                for end in (*self._ends, self._wake):
                    end.close()

    def _watch(self, selector: selectors.BaseSelector) -> bool:
        """Wait for what can go on; False when nothing can."""
        for end in self._ends:
            events = 0
            for way in self._ways:
                if way.source is end and way.wants:
                    events |= selectors.EVENT_READ
                if way.sink is end and way.held:
                    events |= selectors.EVENT_WRITE
            known = end in selector.get_map()
            if events and known:
                selector.modify(end, events)
            elif events:
                selector.register(end, events)
            elif known:
                selector.unregister(end)
        return any(way.wants or way.held for way in self._ways)

    @property
    def alive(self) -> bool:
        """Whether there is still anything to carry."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End both. May be called twice."""
        with contextlib.suppress(OSError):
            self._waker.send(b"x")
        self._thread.join(10)
        self._waker.close()


class _Way:
    """One direction."""

    def __init__(self, source: socket.socket, sink: socket.socket) -> None:
        self.source = source
        self.sink = sink
        self.held = memoryview(b"")
        self.ended = False

    @property
    def wants(self) -> bool:
        return not self.held and not self.ended

    def move(self) -> None:
        with contextlib.suppress(BlockingIOError):
            if self.wants:
                self.held = memoryview(self.source.recv(_SIZE))
                if not self.held:
                    self.ended = True
                    self.sink.shutdown(socket.SHUT_WR)
            if self.held:
                self.held = self.held[self.sink.send(self.held) :]
