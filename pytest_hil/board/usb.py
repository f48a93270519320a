"""How USB devices come to a board: commands by its shell, connections over the network."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_hil.agent.protocol import STDERR, STDOUT
from pytest_hil.attach.listening import Listening
from pytest_hil.config.usb import BoardUsb
from pytest_hil.errors import CommandTimeout, HilError, HostLacks
from pytest_hil.target import Completed
from pytest_hil.usbip.exporter import Guests

if TYPE_CHECKING:
    from pytest_hil.attach.link import Arrived
    from pytest_hil.board.board import Board
    from pytest_hil.board.station import Station

# A board that restarted by itself says nothing of it to its connections: after ten seconds of
# silence it is asked, and believed gone when it does not answer for half a minute.
_KEEPALIVE = {
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE): 1,
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE): 10,
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL): 5,
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT): 6,
}


class BoardLink:
    """See :class:`pytest_hil.attach.link.Link`."""

    def __init__(self, board: Board, station: Station, own: BoardUsb) -> None:
        self.name = board.name
        self._board = board
        self._station = station
        self._own = own

    @property
    def up(self) -> bool:
        return self._station.at_rest()

    def run(
        self, argv: Sequence[str], timeout: float, on_output: Callable[[int, bytes], None]
    ) -> Completed:
        try:
            done = self._board.run(argv, check=False, timeout=timeout)
        except CommandTimeout as error:
            on_output(STDOUT, error.stdout.encode())
            raise
        on_output(STDOUT, done.stdout.encode())
        on_output(STDERR, done.stderr.encode())
        return done

    def open_door(self, arrived: Arrived) -> BoardDoor:
        return BoardDoor(self.name, self._own, arrived)

    def tell(self, kind: str, **facts: Any) -> None:
        self._board.tell(kind, **facts)


class BoardDoor:
    """A TCP port of this host. See :class:`pytest_hil.attach.link.Door`.

    Raises HostLacks when it cannot listen: no fault of the board's.
    """

    def __init__(self, name: str, own: BoardUsb, arrived: Arrived) -> None:
        self._name = name
        self._own = own
        self._arrived = arrived
        self._guests = Guests(own.allow, "allow")
        self._came = False
        self._sent_away: set[str] = set()
        listener = self._listen()
        self.host = own.address
        self.port: int = listener.getsockname()[1]
        self._listening = Listening(listener, self._take, name="hil-usb-door")

    def _listen(self) -> socket.socket:
        where = (self._own.listen, self._own.port)
        six = ":" in self._own.listen
        try:
            return socket.create_server(
                where,
                family=socket.AF_INET6 if six else socket.AF_INET,
                dualstack_ipv6=self._own.listen == "::" and socket.has_dualstack_ipv6(),
            )
        except OSError as error:
            mends = {
                errno.EADDRNOTAVAIL: f"this host has no address {where[0]}: where the board comes "
                'by another one, listen = "…" says which; "0.0.0.0" are all of them',
                errno.EADDRINUSE: "does another board or run have it? Give each board a port of "
                "its own, or leave port out",
                errno.EACCES: "ports below 1024 are root's: take another one",
            }
            raise HostLacks(
                f"[target.{self._name}.usb] in boards.toml: nobody can listen on "
                f"{where[0]}, port {where[1]}: {error.strerror or error}",
                mend=mends.get(error.errno or 0, ""),
            ) from error

    def _take(self, connection: socket.socket, address: tuple[str, int]) -> None:
        peer = address[0]
        if peer not in self._guests:
            self._sent_away.add(peer)
            connection.close()
            return
        self._came = True
        try:
            for (level, option), value in _KEEPALIVE.items():
                connection.setsockopt(level, option, value)
            self._arrived(connection, peer)
        except (OSError, HilError):
            connection.close()

    def why_not(self) -> str:
        if self._came:
            return ""
        if self._sent_away:
            allowed = ", ".join(self._own.allow)
            return (
                f"{', '.join(sorted(self._sent_away))} came and was refused: "
                f"[target.{self._name}.usb] in boards.toml has allow = [{allowed}]"
            )
        return (
            f"it did not come to {self.host}, port {self.port}: is that this host's address as "
            "the board reaches it, and does a firewall let it through?"
        )

    def close(self) -> None:
        self._listening.close()
