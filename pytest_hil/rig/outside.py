"""Where somebody connects to a board's serial line: a TCP port, a socket with a path, or RFC 2217.

One at a time: whoever comes second is refused, as ser2net does it, and written down.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from pytest_hil.errors import ConfigError, InfrastructureError
from pytest_hil.rig.line import Line
from pytest_hil.rig.stream import Stream

# What a reader has not yet taken, in bytes. A UART's adapter has less; nobody who reads at all
# should lose a byte because the host was busy.
_BEHIND = 4 * 2**20
# 107 is the kernel's limit (unix(7)); it is made under a name of the same length.
_LONGEST_PATH = 107
_REFUSAL = b"Port already in use\r\n"


class Outside(Protocol):
    """The outer end of a line. All of it is called in the loop's thread."""

    @property
    def console(self) -> dict[str, str]:
        """The ``console`` table of boards.toml that leads here."""

    @property
    def connected(self) -> bool:
        """Whether somebody is there."""

    def appear(self) -> None:
        """Somebody can connect from now on. Nothing if that is so already, or it is closed."""

    def vanish(self) -> None:
        """Nobody can, and who was connected is not any more."""

    def look(self) -> None:
        """See at once who has come: whoever connected before now is there from now on."""

    def send(self, data: bytes) -> None:
        """The board says something; lost when nobody is there."""

    def pause(self) -> None:
        """The board takes no more for now."""

    def resume(self) -> None:
        """It does again."""

    def close(self) -> None:
        """For good. May be called twice."""


class SocketOutside:
    """A listening socket. The subclasses say of which kind."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._listener: socket.socket | None = None
        self._client: Stream | None = None
        self._peer = ""
        self._overrun = False
        self._closed = False

    # --- what kinds differ in ---

    @property
    def console(self) -> dict[str, str]:
        raise NotImplementedError

    def _listen(self) -> socket.socket:
        raise NotImplementedError

    def _name(self, sock: socket.socket) -> str:
        """Who has connected."""
        raise NotImplementedError

    def _unlisten(self) -> None:
        """The listener was closed."""

    def _met(self) -> None:
        """Somebody is there from now on."""

    def _outgoing(self, data: bytes) -> bytes:
        return data

    def _incoming(self, data: bytes) -> bytes:
        return data

    # --- the contract ---

    @property
    def connected(self) -> bool:
        return self._client is not None

    def appear(self) -> None:
        if self._listener is None and not self._closed:
            self._listener = self._listen()
            self._listener.setblocking(False)
            self._line.loop.add_reader(self._listener.fileno(), self._accept)

    def vanish(self) -> None:
        if self._listener is not None:
            self._line.loop.remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._unlisten()
        self._end()

    def send(self, data: bytes) -> None:
        if self._client is None:
            return
        if self._client.pending > _BEHIND:
            if not self._overrun:
                self._line.record.add("overrun", peer=self._peer)
            self._overrun = True
            return
        self._overrun = False
        self._client.write(self._outgoing(data))

    def pause(self) -> None:
        if self._client is not None:
            self._client.pause()

    def resume(self) -> None:
        if self._client is not None:
            self._client.resume()

    def close(self) -> None:
        self._closed = True
        self.vanish()

    def look(self) -> None:
        while self._listener is not None and self._accept():
            pass

    def _accept(self) -> bool:
        """Take one more in; False when nobody is waiting."""
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return False  # or it has gone again
        peer = self._name(sock)
        if self._client is not None and _has_ended(self._client.fd):
            # Its end is known to the kernel, and only not yet to us.
            self._client.drain()
            self._end()
        if self._client is not None:
            self._line.record.add("violation", peer=peer, detail=f"{self._peer} was connected")
            with contextlib.suppress(OSError), sock:
                sock.setblocking(False)
                sock.send(_REFUSAL)
                sock.shutdown(socket.SHUT_RDWR)
            return True
        self._peer = peer
        self._overrun = False
        self._line.record.add("begin", peer=peer)
        self._client = Stream(self._line.loop, sock.detach(), on_data=self._got, on_end=self._end)
        self._met()
        return True

    def _got(self, data: bytes) -> None:
        self._line.typed(self._incoming(data))

    def _end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()
            self._line.record.add("end", peer=self._peer)


def _has_ended(fd: int) -> bool:
    """Whether the other side of a connection has closed it, whatever is still to be read."""
    if fd < 0:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLRDHUP)
    return bool(poll.poll(0))


class HeldPort:
    """A TCP port of 127.0.0.1 that stays ours while nobody listens on it.

    The kernel gives a port that is bound to nobody else; to listen on it, somebody who knows it
    binds it once more (SO_REUSEADDR, socket(7)).
    """

    def __init__(self) -> None:
        self._socket = reusing_socket()
        self._socket.bind(("127.0.0.1", 0))
        self.number: int = self._socket.getsockname()[1]

    def listen(self) -> socket.socket:
        sock = reusing_socket()
        try:
            sock.bind(("127.0.0.1", self.number))
            sock.listen()
        except BaseException:
            sock.close()
            raise
        return sock

    def close(self) -> None:
        self._socket.close()


def reusing_socket() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


class TcpOutside(SocketOutside):
    """A TCP port of 127.0.0.1, the same for as long as the line lives."""

    def __init__(self, line: Line) -> None:
        super().__init__(line)
        self._port = HeldPort()
        self.address = f"127.0.0.1:{self._port.number}"

    @property
    def console(self) -> dict[str, str]:
        return {"driver": "tcp", "address": self.address}

    def close(self) -> None:
        super().close()
        self._port.close()

    def _listen(self) -> socket.socket:
        return self._port.listen()

    def _name(self, sock: socket.socket) -> str:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            host, port = sock.getpeername()[:2]
        except OSError:
            return "gone already"
        return f"{host}:{port}"


class UnixOutside(SocketOutside):
    """A socket with a path."""

    def __init__(self, line: Line, path: Path) -> None:
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise ConfigError(
                f"the socket {path}",
                f"its path has more than {_LONGEST_PATH} bytes",
                mend="put the rig in another directory, with a shorter path",
            )
        super().__init__(line)
        self.path = path

    @property
    def console(self) -> dict[str, str]:
        return {"driver": "unix", "path": str(self.path)}

    def _listen(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Listening before it has its name: nobody finds a name that refuses.
            new = self.path.with_suffix(".new")
            sock.bind(str(new))
            sock.listen()
            new.rename(self.path)
        except BaseException:
            sock.close()
            raise
        return sock

    def _unlisten(self) -> None:
        self.path.unlink(missing_ok=True)

    def _name(self, sock: socket.socket) -> str:
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, _uid, _gid = struct.unpack("3i", credentials)
        return process_name(pid)


class Rfc2217Outside(TcpOutside):
    """A TCP port that speaks RFC 2217, by pyserial's own server."""

    def __init__(self, line: Line) -> None:
        try:
            from serial import rfc2217  # type: ignore[import-untyped,unused-ignore]
        except ImportError:
            raise InfrastructureError(
                "pyserial is not installed", mend="install it: pip install 'pytest-hil[serial]'"
            ) from None
        super().__init__(line)
        self._rfc2217: Any = rfc2217
        self._manager: Any = None
        self.uart = Uart()

    @property
    def console(self) -> dict[str, str]:
        return {"driver": "serial", "port": f"rfc2217://{self.address}"}

    def _met(self) -> None:
        assert self._client is not None
        self._manager = self._rfc2217.PortManager(self.uart, _Writer(self._client.write))

    def _outgoing(self, data: bytes) -> bytes:
        return b"".join(self._manager.escape(data))

    def _incoming(self, data: bytes) -> bytes:
        return b"".join(self._manager.filter(data))


class _Writer:
    """What a PortManager writes its own words to."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def write(self, data: bytes) -> None:
        self._write(bytes(data))


class Uart:
    """The settings of a UART, as pyserial calls them; they are kept, and change nothing."""

    def __init__(self) -> None:
        self.baudrate = 115200
        self.bytesize = 8
        self.parity = "N"
        self.stopbits: float = 1
        self.xonxoff = self.rtscts = False
        self.dtr = self.rts = self.break_condition = False
        self.cts = self.dsr = self.cd = True
        self.ri = False

    def reset_input_buffer(self) -> None:
        pass

    def reset_output_buffer(self) -> None:
        pass


def process_name(pid: int) -> str:
    """``process 123 (pytest)``."""
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "gone already"
    mine = ", this one" if pid == os.getpid() else ""
    return f"process {pid} ({name}{mine})"
