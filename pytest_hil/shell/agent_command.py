"""A command through an agent: fed, listened to, kept to its time."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from pytest_hil.agent import protocol
from pytest_hil.agent.frames import MAX_PAYLOAD
from pytest_hil.agent.protocol import Credit, Data, Exit, Failed
from pytest_hil.errors import (
    CommandFailed,
    CommandTimeout,
    InfrastructureError,
    OutcomeUnknown,
    OutputTooLarge,
    ProtocolError,
)
from pytest_hil.shell.agent_channel import Channel, Operation
from pytest_hil.shell.base import Completed
from pytest_hil.shell.patient_writer import Late
from pytest_hil.shell.plain_line import plain_words

_WINDOW = 256 * 1024
"""Bytes of output that may be under way for one command."""
_KILL_GRACE = 1.0
"""Seconds after a command's timeout in which the agent, who keeps it too, says so."""
_CANCEL_GRACE = 4.0
"""Seconds after that in which it may obey being told so."""


class Follow:
    """Follows a command while it runs: gets its output as it comes, and can end it.

    ``on_output`` gets (``protocol.STDOUT`` or ``STDERR``, bytes) in the thread that called run().
    While it blocks, the command is held back; when it raises, the command is killed. What it
    got is not in the result, and is not counted against ``max_output``.
    """

    def __init__(self, on_output: Callable[[int, bytes], None]) -> None:
        self.on_output = on_output
        self._lock = threading.Lock()
        self._operation: Operation | None = None
        self._cancelled = False

    def begin(self, operation: Operation) -> None:
        """The command was sent."""
        with self._lock:
            self._operation = operation
            cancelled = self._cancelled
        if cancelled:
            operation.cancel()

    def cancel(self) -> None:
        """Kill the command, from any thread, at any time; its end is then as of SIGKILL."""
        with self._lock:
            self._cancelled = True
            operation = self._operation
        if operation is not None:
            operation.cancel()


def run(
    channel: Channel,
    command: str | Sequence[str],
    *,
    check: bool,
    timeout: float | None,
    input: str | bytes | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    max_output: int,
    follow: Follow | None = None,
) -> Completed:
    """Run a command to its end: see :meth:`pytest_hil.target.Target.run`.

    It returns when the command's own process has ended. Children that it left in the
    background live on; what they print later is lost, and may end them by SIGPIPE: send it
    to a file. A program that cannot be started gives exit code 127 or 126, as in a shell.
    """
    text = command if isinstance(command, str) else shlex.join(command)
    with channel.operation(repr(text), credit=_WINDOW) as operation:
        running = _Run(operation, text, timeout=timeout, max_output=max_output, stdin=input)
        running.follow = follow
        running.start(command, env, cwd)
        if follow is not None:
            follow.begin(operation)
        completed = running.finish()
    if check and completed.exit_code != 0:
        raise CommandFailed(
            text,
            exit_code=completed.exit_code,
            stdout=completed.stdout,
            stderr=completed.stderr,
        )
    return completed


class _Run:
    """One command: feeds it, collects what it prints, keeps its time."""

    def __init__(
        self,
        operation: Operation,
        command: str,
        *,
        timeout: float | None,
        max_output: int,
        stdin: str | bytes | None,
    ) -> None:
        self.follow: Follow | None = None
        self._operation = operation
        self._command = command
        self._timeout = timeout
        self._max_output = max_output
        self._stdin = memoryview(stdin.encode() if isinstance(stdin, str) else stdin or b"")
        self._has_stdin = stdin is not None
        self._stdin_window = protocol.INPUT_WINDOW
        self._output = {protocol.STDOUT: bytearray(), protocol.STDERR: bytearray()}
        self._size = 0
        self._not_granted = 0
        self._began = time.monotonic()
        self._deadline = None if timeout is None else self._began + timeout + _KILL_GRACE

    def start(
        self, command: str | Sequence[str], env: Mapping[str, str] | None, cwd: str | None
    ) -> None:
        words = plain_words(command) if isinstance(command, str) else None
        argv = words or (["/bin/sh", "-c", command] if isinstance(command, str) else command)
        milliseconds = 0 if self._timeout is None else max(1, int(self._timeout * 1000))
        request = protocol.execute(
            self._operation.number,
            argv,
            timeout_ms=milliseconds if milliseconds < 2**32 else 0,
            credit=_WINDOW,
            stdin=self._has_stdin,
            plain_line=words is not None,
            env=env,
            cwd=cwd or "",
        )
        self._send(request + self._next_stdin())

    def finish(self) -> Completed:
        """Until it has ended, in one way or another."""
        while True:
            event = self._next()
            if isinstance(event, Data):
                self._take(event)
            elif isinstance(event, Credit):
                self._stdin_window += event.size
                if event.closed:
                    self._has_stdin = False
                more = self._next_stdin()
                if more:
                    self._send(more)
            elif isinstance(event, Exit):
                return self._completed(event)
            elif isinstance(event, Failed):
                raise InfrastructureError(f"{self._command!r} could not be run: {event.text}")
            else:
                raise ProtocolError(f"unexpected answer to a command: {event}")

    def _send(self, frames: bytes) -> None:
        try:
            self._operation.send(frames, self._deadline)
        except Late:
            raise self._unknown() from None

    def _next(self) -> protocol.Event:
        try:
            return self._operation.next(self._deadline)
        except Late:
            pass
        # The agent should have killed it by itself. Tell it so, and hear what it says.
        self._operation.cancel()
        deadline = time.monotonic() + _CANCEL_GRACE
        try:
            while not isinstance(event := self._operation.next(deadline), Exit | Failed):
                pass
        except Late:
            raise self._unknown() from None
        if isinstance(event, Failed):
            return event
        return Exit(event.operation, event.code, timed_out=True)

    def _unknown(self) -> OutcomeUnknown:
        if not self._operation.sent:
            return OutcomeUnknown(
                f"{self._command!r} was not sent: the guest took nothing for {self._timeout:g} s"
            )
        return OutcomeUnknown(
            f"{self._command!r} did not end within {self._timeout:g} s, and the agent does not "
            "say that it killed it: the guest hangs, or is much too slow"
        )

    def _next_stdin(self) -> bytes:
        """Frames with as much of stdin as the agent takes now."""
        frames = []
        while self._has_stdin and (self._stdin_window or not self._stdin):
            size = min(self._stdin_window, len(self._stdin), MAX_PAYLOAD)
            chunk, self._stdin = self._stdin[:size], self._stdin[size:]
            self._stdin_window -= size
            self._has_stdin = bool(self._stdin)
            frames.append(
                protocol.data(self._operation.number, bytes(chunk), end=not self._has_stdin)
            )
        return b"".join(frames)

    def _take(self, event: Data) -> None:
        if event.stream not in self._output:
            raise ProtocolError(f"a command has no stream {event.stream}")
        if self.follow is not None:
            self.follow.on_output(event.stream, event.payload)
        else:
            self._output[event.stream] += event.payload
            self._size += len(event.payload)
        if self._size > self._max_output:
            raise OutputTooLarge(self._command, limit=self._max_output)
        self._not_granted += len(event.payload)
        if self._not_granted >= _WINDOW // 2:
            size, self._not_granted = self._not_granted, 0
            try:
                self._operation.grant(size, self._deadline)
            except Late:
                raise self._unknown() from None

    def _text(self, stream: int) -> str:
        return self._output[stream].decode(errors="replace")

    def _completed(self, end: Exit) -> Completed:
        stdout, stderr = self._text(protocol.STDOUT), self._text(protocol.STDERR)
        if end.timed_out and self._timeout is not None:
            raise CommandTimeout(self._command, timeout=self._timeout, stdout=stdout, stderr=stderr)
        duration = time.monotonic() - self._began
        return Completed(self._command, stdout, stderr, end.code, duration)
