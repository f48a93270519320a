"""A console behind a TCP port that passes bytes as they are: ser2net (raw), conserver, QEMU."""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.config.driver import address, key, seconds
from pytest_hil.console.transport import SocketTransport, Transport
from pytest_hil.errors import ChannelLost

# A cable that is pulled is noticed after some 20 s, with or without traffic (tcp(7), in seconds;
# the last in milliseconds).
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000),
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
)


class LineSocket(SocketTransport):
    """A socket whose end is seen at once by a thread that polls it."""

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # closed already, or the other side was first
        super().close()


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """Keys of a ``console`` table with ``driver = "tcp"``."""

    address: tuple[str, int] = key(address, help='where it listens: "lab1:4001"')
    connect_timeout: float = key(seconds, default=5.0, help="seconds; 0: as long as the kernel")


class TcpConsole:
    """Raw TCP, with keepalive."""

    Options = TcpOptions
    watch: Path | None = None

    def __init__(self, options: TcpOptions) -> None:
        self._options = options

    def open(self) -> Transport:
        """Connect. Raises ChannelLost."""
        return connect(*self._options.address, timeout=self._options.connect_timeout)


def connect(host: str, port: int, *, timeout: float) -> LineSocket:
    """A connection, within ``timeout`` seconds for each of the host's addresses."""
    try:
        sock = socket.create_connection((host, port), timeout=timeout or None)
    except UnicodeError as error:
        raise ChannelLost(
            f"the console at {host}:{port} cannot be reached: no host has such a name ({error})"
        ) from error
    except OSError as error:
        raise unreachable(host, port, error) from error
    try:
        for level, option, value in _KEEPALIVE:
            sock.setsockopt(level, option, value)
        return LineSocket(sock)
    except BaseException:
        sock.close()
        raise


def unreachable(host: str, port: int | str, error: OSError) -> ChannelLost:
    """What a failed connection means, and what mends it."""
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if isinstance(error, socket.gaierror):
        why, mend = f"the host's name has no address ({error.strerror})", "is the name right?"
    elif isinstance(error, TimeoutError):
        why, mend = "nobody answers", f"is {host} switched on, and does a firewall drop packets?"
    elif error.errno == errno.ECONNREFUSED:
        why = "the connection is refused"
        mend = f"does the serial server (ser2net, conserver) run on {host}, on this port?"
    elif error.errno in (errno.EHOSTUNREACH, errno.ENETUNREACH):
        why, mend = "there is no way to that host", "is the network (or the VPN) up?"
    else:
        why, mend = error.strerror or str(error), ""
    return ChannelLost(f"the console at {place} cannot be reached: {why}", mend=mend)
