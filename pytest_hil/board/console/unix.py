"""A console behind a Unix socket: of an emulator, a simulator, or a server on this host."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.board.console.tcp import LineSocket
from pytest_hil.config.driver import path_key
from pytest_hil.console.transport import Transport
from pytest_hil.errors import ChannelLost


@dataclass(frozen=True, slots=True)
class UnixOptions:
    """Keys of a ``console`` table with ``driver = "unix"``."""

    path: Path = path_key(help="the socket")


class UnixConsole:
    """A stream socket with a path."""

    Options = UnixOptions

    def __init__(self, options: UnixOptions) -> None:
        self._path = options.path
        self.watch: Path | None = options.path

    def open(self) -> Transport:
        """Connect. Raises ChannelLost."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # A server takes a connection at once, or its queue is full (EAGAIN, unix(7)).
            sock.setblocking(False)
            sock.connect(str(self._path))
            return LineSocket(sock)
        except OSError as error:
            sock.close()
            raise self._unreachable(error) from error
        except BaseException:
            sock.close()
            raise

    def _unreachable(self, error: OSError) -> ChannelLost:
        why, mend = error.strerror or str(error), ""
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            why, mend = "there is no such file", "does the program that makes it run?"
        elif error.errno == errno.ECONNREFUSED:
            why = "nobody listens"
            mend = "the program that made it has ended, or is just starting"
        elif error.errno == errno.EACCES:
            why = "this user may not connect"
            mend = f"see who may: ls -ld {self._path.parent} {self._path}"
        elif isinstance(error, BlockingIOError):
            why, mend = "its server takes no one", "is it busy with another client?"
        elif "too long" in str(error):
            mend = "a socket's path has at most 107 bytes: use a shorter one, or a link to it"
        return ChannelLost(f"the console at {self._path} cannot be reached: {why}", mend=mend)
