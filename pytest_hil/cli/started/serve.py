"""The server's answers to one command that has connected."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
from collections.abc import Callable

from pytest_hil.agent import protocol
from pytest_hil.cli.started import wire
from pytest_hil.console.session import Console
from pytest_hil.errors import CommandTimeout, HilError, ProtocolError
from pytest_hil.qemu.guest import Guest
from pytest_hil.shell.agent_command import Follow

_HISTORY = 16 * 1024
_PATIENCE = 10.0
# As those of timeout(1) and env(1): the command was killed, or could not be run.
TIMED_OUT, NOT_RUN = 124, 125


def serve(connection: socket.socket, guest: Guest, stop: Callable[[], None]) -> None:
    """Do what one connection asks for, and close it. Raises nothing that matters."""
    with connection, contextlib.suppress(OSError):
        # Whoever connects and says nothing holds a thread for so long and no longer.
        connection.settimeout(_PATIENCE)
        try:
            asked = wire.receive(connection)
            if asked is None:
                return
            connection.settimeout(None)
            _answer(connection, guest, stop, *asked)
        except CommandTimeout as error:
            # Not what it says to a test about run().
            wire.send(connection, {"error": error.message, "code": TIMED_OUT})
        except HilError as error:
            wire.send(connection, {"error": str(error), "code": NOT_RUN})


def _answer(
    connection: socket.socket,
    guest: Guest,
    stop: Callable[[], None],
    facts: wire.Facts,
    payload: bytes,
) -> None:
    verb = facts.get("verb")
    if verb == "console":
        _Bridge(connection, guest.console).run()
    elif verb == "run":
        _run(connection, guest, facts, payload)
    elif verb == "put":
        guest.put(facts["local"], facts["remote"])
        wire.send(connection, {"done": True})
    elif verb == "get":
        guest.get(facts["remote"], facts["local"])
        wire.send(connection, {"done": True})
    elif verb == "stop":
        wire.send(connection, {"done": True})
        stop()
    else:
        raise ProtocolError(
            f"the server does not know {verb!r}", mend="it is of another version: `vm stop` it"
        )


def _run(connection: socket.socket, guest: Guest, facts: wire.Facts, payload: bytes) -> None:
    names = {protocol.STDOUT: "stdout", protocol.STDERR: "stderr"}

    def output(stream: int, data: bytes) -> None:
        wire.send(connection, {"stream": names[stream]}, data)

    follow = Follow(output)
    watcher = threading.Thread(target=_cancel_at_end, args=(connection, follow), daemon=True)
    watcher.start()
    done = guest.run(
        facts["command"],
        check=False,
        timeout=facts["timeout"],
        input=payload if facts["has_input"] else None,
        follow=follow,
    )
    wire.send(connection, {"exit": done.exit_code})


def _cancel_at_end(connection: socket.socket, follow: Follow) -> None:
    """Nobody waits for the command any more (a Ctrl-C, say): end it."""
    with contextlib.suppress(OSError):
        connection.recv(1, socket.MSG_PEEK)
    follow.cancel()


class _Bridge:
    """Carries a console over a socket. Slow readers lose text rather than hold the machine back."""

    def __init__(self, connection: socket.socket, console: Console) -> None:
        self._socket = connection
        self._console = console
        self._carried = console.mark().raw
        self._pending = memoryview(b"")

    def run(self) -> None:
        start, data = self._console.raw_after(max(0, self._carried - _HISTORY))
        wire.send(self._socket, {"done": True}, data[: self._carried - start])
        self._socket.setblocking(False)
        news = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        unsubscribe = self._console.subscribe(lambda _data: os.eventfd_write(news, 1))
        try:
            self._loop(news)
        finally:
            unsubscribe()
            os.close(news)

    def _loop(self, news: int) -> None:
        while True:
            closed = self._console.closed
            self._carry()
            if closed and not self._pending:
                return
            poll = select.poll()
            poll.register(self._socket, select.POLLIN | (select.POLLOUT if self._pending else 0))
            poll.register(news, select.POLLIN)
            ready = dict(poll.poll())
            if news in ready:
                os.eventfd_read(news)
            events = ready.get(self._socket.fileno(), 0)
            if events & ~select.POLLOUT and not self._keys():
                return

    def _carry(self) -> None:
        """Give the socket what it takes now."""
        while True:
            if not self._pending:
                start, data = self._console.raw_after(self._carried)
                lost, self._carried = start - self._carried, start + len(data)
                note = b"\r\n[pytest-hil: %d bytes were too fast]\r\n" % lost if lost else b""
                self._pending = memoryview(note + data)
            if not self._pending:
                return
            try:
                self._pending = self._pending[self._socket.send(self._pending) :]
            except BlockingIOError:
                return

    def _keys(self) -> bool:
        """What was typed, to the machine; False when nobody types any more."""
        keys = self._socket.recv(4096)
        if not keys:
            return False
        # A machine that takes no keys is told to nobody: it may later.
        with contextlib.suppress(HilError):
            self._console.send(keys, timeout=0.5)
        return True
