"""A console that is another program's standard input and output: "ssh -t lab1 picocom /dev/…"."""

from __future__ import annotations

import errno
import os
import shlex
import socket
import tty
from dataclasses import dataclass
from pathlib import Path

from pytest_hil import process
from pytest_hil.config import values
from pytest_hil.config.driver import key
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost, describe_exit, visible

# How much of its stderr an error shows, in bytes.
_LAST_WORDS = 4096
# Seconds: for the exit code of a program that has ended its output; for its end after SIGTERM.
_EXIT, _GRACE = 1.0, 1.0


def command(value: object) -> tuple[str, ...]:
    """A program and its arguments: one line in a shell's quotes (but no shell), or an array."""
    if isinstance(value, str):
        try:
            words = tuple(shlex.split(values.text(value)))
        except ValueError as error:
            raise BadValue(f"{shown(value)} cannot be split into words: {error}") from None
    elif isinstance(value, list | tuple):
        words = values.texts(value)
    else:
        raise wrong_kind(value, 'a command, such as "ssh -t lab1 picocom /dev/ttyUSB0"')
    if not words or not words[0]:
        raise BadValue("there is no program in it", 'write "ssh -t lab1 picocom /dev/ttyUSB0"')
    return words


@dataclass(frozen=True, slots=True)
class CommandOptions:
    """Keys of a ``console`` table with ``driver = "command"``."""

    command: tuple[str, ...] = key(
        command, help="the program and its arguments (no shell between); its stdio is the console"
    )
    pty: bool = key(
        values.boolean,
        default=True,
        help="give it a terminal (ssh -t and picocom want one), not a plain socket",
    )


class CommandConsole:
    """A program that is started for as long as the console is open."""

    Options = CommandOptions
    watch: Path | None = None

    def __init__(self, options: CommandOptions) -> None:
        self._options = options

    def open(self) -> Transport:
        """Start it. Raises ToolMissing, ChannelLost."""
        argv = self._options.command
        process.find(argv[0])
        # A session of its own: what asks for a password on /dev/tty asks in the console, and is
        # not stopped for reading from somebody's terminal.
        setsid = [process.find("setsid", package="util-linux")]
        try:
            if self._options.pty:
                ours, theirs = os.openpty()
                tty.setraw(theirs)  # before its first byte: nothing is echoed or translated
                setsid.append("--ctty")
            else:
                pair = socket.socketpair()
                ours, theirs = (one.detach() for one in pair)
            return _started(argv, [*setsid, *argv], ours, theirs)
        except OSError as error:
            raise ChannelLost(
                f"the console's command cannot be started: {error}\n  command: {shlex.join(argv)}"
            ) from error


def _started(argv: tuple[str, ...], full: list[str], ours: int, theirs: int) -> ProgramTransport:
    words, said = os.pipe()
    # Nobody may be reading what it says on stderr: better a message of it is lost than it waits.
    os.set_blocking(said, False)
    try:
        program = process.start(full, stdin=theirs, stdout=theirs, stderr=said, new_group=False)
    except BaseException:
        os.close(ours)
        os.close(words)
        raise
    finally:
        os.close(theirs)
        os.close(said)
    return ProgramTransport(program, argv, ours, words)


class ProgramTransport:
    """The descriptor at the other end of a program's stdin and stdout, and its stderr."""

    def __init__(
        self, program: process.Process, argv: tuple[str, ...], fd: int, words: int
    ) -> None:
        self._program = program
        self._argv = argv
        self._fd = fd
        self._stderr = words
        self._said = b""
        os.set_blocking(fd, False)
        os.set_blocking(words, False)

    def fileno(self) -> int:
        return self._fd

    def read(self, size: int) -> bytes:
        self._listen()
        try:
            if data := os.read(self._fd, size):
                return data
        except OSError as error:
            # A pty's end, and a socket's when the program left input unread.
            if error.errno not in (errno.EIO, errno.ECONNRESET):
                raise
        raise OSError(self._last_words())

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    def close(self) -> None:
        if self._fd < 0:
            return
        # First its terminal: what it has started itself is hung up as well.
        os.close(self._fd)
        os.close(self._stderr)
        self._fd = self._stderr = -1
        self._program.end(grace=_GRACE)

    def _listen(self) -> None:
        try:
            while data := os.read(self._stderr, 2**16):
                self._said = (self._said + data)[-_LAST_WORDS:]
        except BlockingIOError:
            pass

    def _last_words(self) -> str:
        code = self._program.wait(_EXIT)
        self._listen()
        how = "closed its output" if code is None else f"ended with {describe_exit(code)}"
        said = " ".join(visible(self._said.decode(errors="replace")).split())
        return f"{self._argv[0]} {how}" + (f"; it said: {said}" if said else "")
