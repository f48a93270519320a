"""Where the guest's connections to USB/IP exporters arrive.

QEMU's user network answers at one address of the guest's (``guestfwd``): for each connection it
starts our :mod:`~pytest_hil.qemu.usb_handover`, whose standard input is the connection, and which
gives it to us over a unix socket and ends. So there is no relay, no port on the host, and nothing
in QEMU's saved state: libslirp saves only those forwards that go to a character device.

The unix socket has an abstract name (Linux: unix(7)): it leaves no file, and it may be made after
QEMU. Such names are open to every user of the host, so each side asks whose the other is.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytest_hil.attach.listening import Listening
from pytest_hil.errors import HilError, InfrastructureError
from pytest_hil.qemu import usb_handover

# Seconds for what a handover does at once.
_PATIENCE = 5.0


def new_name() -> str:
    """A name for one machine's gateway, which nobody can guess."""
    return f"pytest-hil-usb-{secrets.token_hex(16)}"


def command(name: str) -> str:
    """What QEMU is to start for a connection."""
    # -I: nothing of the user's environment; -S: no site-packages, which costs most of the start.
    return shlex.join([sys.executable, "-I", "-S", str(Path(usb_handover.__file__)), name])


class Connection(socket.socket):
    """A connection of the guest's. What is read is acknowledged at once.

    libslirp's end of it is a TCP socket that waits with what it has to send until all before is
    acknowledged (Nagle's algorithm), which the kernel at this end would put off for 40 ms: a stick
    would take 1.6 MB/s. There is no way to tell libslirp, and TCP_QUICKACK does not last (tcp(7)).
    """

    def recv(self, *args: Any) -> bytes:
        data = super().recv(*args)
        self._acknowledge()
        return data

    def recv_into(self, *args: Any) -> int:
        size = super().recv_into(*args)
        self._acknowledge()
        return size

    def _acknowledge(self) -> None:
        with contextlib.suppress(OSError):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Gateway:
    """Listens under a name until it is closed. ``arrived`` gets each connection.

    It is called in the gateway's thread, owns the socket, and must not wait.
    Raises InfrastructureError when somebody else has the name.
    """

    def __init__(self, name: str, arrived: Callable[[socket.socket], object]) -> None:
        self._arrived = arrived
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            listener.bind("\0" + name)
            listener.listen(64)
        except OSError as error:
            listener.close()
            raise InfrastructureError(
                f"the gateway for USB cannot listen: {error.strerror or error}"
            ) from error
        self._listening = Listening(listener, self._came, name="hil-usb-gateway")

    def _came(self, peer: socket.socket, _address: object) -> None:
        with peer, contextlib.suppress(OSError, HilError):
            if usb_handover.peer_uid(peer) == os.getuid():
                self._take(peer)

    def _take(self, peer: socket.socket) -> None:
        peer.settimeout(_PATIENCE)
        _message, fds, _flags, _address = socket.recv_fds(peer, 16, 1)
        if not fds:
            return
        connection = Connection(fileno=fds[0])
        try:
            os.set_inheritable(connection.fileno(), False)
            self._arrived(connection)
        except BaseException:
            connection.close()
            raise
        peer.send(b"+")

    def close(self) -> None:
        """Stop. May be called twice."""
        self._listening.close()

    def __enter__(self) -> Gateway:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
