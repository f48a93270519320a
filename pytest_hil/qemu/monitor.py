"""QMP with a synchronous face.

qemu.qmp speaks asyncio; the tests are plain functions. One event loop thread serves all
monitors of the process: it starts with the first and ends with the last.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from typing import Any, TypeVar

from qemu.qmp import ExecuteError, QMPClient, QMPError, Runstate
from qemu.qmp.message import Message

from pytest_hil.errors import ChannelLost, MachineError

T = TypeVar("T")
Event = dict[str, Any]
OnEvent = Callable[[Event], None]
Log = Callable[[dict[str, Any]], None]

_log = logging.getLogger(__name__)
# It reports every end of a connection as an error; for us that is how most machines end.
logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)


class CommandError(MachineError):
    """QEMU refused a monitor command; ``message`` has its words."""


class _Loop:
    """The event loop's thread, counted by its users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def enter(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._loop.run_forever, name="hil-qmp", daemon=True
                )
                self._thread.start()
            self._users += 1
            return self._loop

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        loop.call_soon_threadsafe(loop.stop)
        if thread is not threading.current_thread():
            thread.join(5)
            loop.close()


_loop = _Loop()


class Monitor:
    """The monitor of one QEMU, on a connected socket that it owns.

    Subscribers are called from the loop's thread and must not block. ``log`` gets every message
    in either direction (qmp.jsonl).
    """

    def __init__(self, sock: socket.socket, *, name: str, log: Log | None = None) -> None:
        self._name = name
        self._socket = sock
        self.log = log
        self._subscribers: list[OnEvent] = []
        self._waiters: set[Waiter] = set()
        self.lost = False
        self._loop: asyncio.AbstractEventLoop | None = _loop.enter()
        self._client = _Client(self)
        self._fd_lock = threading.Lock()

    def connect(self, timeout: float) -> None:
        """Greeting and negotiation. Raises ChannelLost when QEMU is gone or silent."""
        try:
            self._call(self._client.connect(self._socket), timeout)
        except (QMPError, OSError) as error:
            raise ChannelLost(f"no QMP greeting from the machine {self._name}: {error}") from error

    def execute(
        self, command: str, arguments: dict[str, Any] | None = None, *, timeout: float = 30.0
    ) -> Any:
        """One command; its ``return``.

        Raises CommandError when QEMU refuses it, ChannelLost when QEMU is gone or silent.
        """
        try:
            return self._call(self._client.execute(command, arguments), timeout)
        except ExecuteError as error:
            raise CommandError(f"{command}: QEMU said: {error}") from error
        except QMPError as error:
            raise ChannelLost(
                f"the monitor of {self._name} was lost in {command}: {error}"
            ) from error

    def execute_all(self, *commands: tuple[str, dict[str, Any]], timeout: float = 30.0) -> None:
        """Several commands in one go: none waits for the answer to the one before it.

        Raises as :meth:`execute` does, for the first that fails.
        """

        async def together() -> None:
            await asyncio.gather(*(self._client.execute(*command) for command in commands))

        names = ", ".join(name for name, _arguments in commands)
        try:
            self._call(together(), timeout)
        except ExecuteError as error:
            raise CommandError(f"{names}: QEMU said: {error}") from error
        except QMPError as error:
            raise ChannelLost(
                f"the monitor of {self._name} was lost in {names}: {error}"
            ) from error

    def send_fd(self, fd: int, name: str) -> None:
        """Hand a descriptor to QEMU; ``fd:NAME`` is then its address in commands."""
        with self._fd_lock:
            self._call(_as_coroutine(lambda: self._client.send_fd_scm(fd)), 5)
            self.execute("getfd", {"fdname": name})

    def subscribe(self, callback: OnEvent) -> Callable[[], None]:
        """Call ``callback`` with every event; returns what ends it."""
        self._subscribers.append(callback)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._subscribers.remove(callback)

        return end

    def waiter(self, *events: str) -> Waiter:
        """Begin to listen for events; made *before* the command that brings them."""
        made = Waiter(self, events, name=self._name)
        self._waiters.add(made)
        return made

    def forget(self, waiter: Waiter) -> None:
        """It waits no more."""
        self._waiters.discard(waiter)

    def close(self) -> None:
        """May be called twice, and from any thread but the loop's."""
        loop, self._loop = self._loop, None
        if loop is None:
            return
        future = asyncio.run_coroutine_threadsafe(self._client.shut(), loop)
        with contextlib.suppress(Exception):
            future.result(5)
        self._socket.close()
        _loop.leave()

    def dispatch(self, event: Event) -> None:
        for subscriber in tuple(self._subscribers):
            self._tell(subscriber, event)

    def ended(self) -> None:
        """The connection is gone: no event comes any more."""
        self.lost = True
        for waiter in tuple(self._waiters):
            waiter.wake()

    def note(self, message: dict[str, Any]) -> None:
        """Log a message."""
        if self.log is not None:
            self._tell(self.log, message)

    def _tell(self, listener: Callable[[dict[str, Any]], None], what: dict[str, Any]) -> None:
        try:
            listener(what)
        except Exception:
            # For qemu.qmp it would be the end of the connection.
            _log.exception("a listener to the monitor of %s failed", self._name)

    def _call(self, work: Coroutine[Any, Any, T], timeout: float) -> T:
        loop = self._loop
        try:
            if loop is None:
                raise RuntimeError
            future: Future[T] = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:  # another thread has just closed it, and with it the loop
            work.close()
            raise ChannelLost(f"the monitor of {self._name} is closed") from None
        try:
            return future.result(timeout)
        except FutureTimeout:
            future.cancel()
            raise ChannelLost(
                f"the monitor of {self._name} did not answer within {timeout:g} s"
            ) from None


class Waiter:
    """Waits for one of some events, from the moment it is made."""

    def __init__(self, monitor: Monitor, events: tuple[str, ...], *, name: str) -> None:
        self._name = name
        self._wanted = frozenset(events)
        self._found: list[Event] = []
        self._condition = threading.Condition()
        self._end = monitor.subscribe(self._on_event)
        self._monitor = monitor

    def _on_event(self, event: Event) -> None:
        if event["event"] in self._wanted:
            with self._condition:
                self._found.append(event)
                self._condition.notify_all()

    def wait(self, timeout: float, *, until: Callable[[Event], bool] = lambda _e: True) -> Event:
        """The first event for which ``until`` holds.

        Raises ChannelLost when none comes in time, or QEMU is gone.
        """

        def first() -> Event | None:
            return next((event for event in self._found if until(event)), None)

        with self._condition:
            self._condition.wait_for(lambda: first() or self._monitor.lost, timeout)
            event = first()
        if event is None:
            how = "was lost before" if self._monitor.lost else "did not bring in time:"
            raise ChannelLost(f"the monitor of {self._name} {how} {'/'.join(sorted(self._wanted))}")
        return event

    def wake(self) -> None:
        """Look again."""
        with self._condition:
            self._condition.notify_all()

    def __enter__(self) -> Waiter:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()
        self._monitor.forget(self)


class _Client(QMPClient):
    """qemu.qmp's client, telling its monitor what passes by."""

    def __init__(self, monitor: Monitor) -> None:
        super().__init__(None)
        self._monitor = monitor

    async def _on_message(self, msg: Message) -> None:
        self._monitor.note({"from": "qemu", **dict(msg)})
        if "event" in msg:
            # Not to qemu.qmp's own event queues: nobody reads them, and they would grow.
            self._monitor.dispatch(dict(msg))
            return
        await super()._on_message(msg)

    def _do_send(self, msg: Message) -> None:
        self._monitor.note({"from": "us", **dict(msg)})
        super()._do_send(msg)

    def _set_state(self, state: Runstate) -> None:
        super()._set_state(state)
        if state is Runstate.DISCONNECTING:
            self._monitor.ended()

    async def shut(self) -> None:
        with contextlib.suppress(Exception):
            await self.disconnect()


async def _as_coroutine(call: Callable[[], T]) -> T:
    return call()
