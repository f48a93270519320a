"""Where the devices of a target come from."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque

from pytest_hil.attach.relay import Relay
from pytest_hil.errors import ConfigError, NotThere
from pytest_hil.usbip.exporter import Exporter, Observer, Plugged
from pytest_hil.usbip.messages import parse_address
from pytest_hil.usbip.urb import Exportable


class OwnSource:
    """A device of ours, at the target's exporter. ``inner`` is the user's, ``device`` what is
    offered: that, or one that has faults."""

    text = ""

    def __init__(
        self,
        exporter: Exporter,
        inner: Exportable,
        offered: Exportable,
        busid: str,
        observer: Observer,
    ) -> None:
        self.busid = busid
        self.device: Exportable = inner
        self._offered = offered
        self._exporter = exporter
        self._observer = observer
        self._plugged: Plugged | None = None
        self._errors: deque[str] = deque(maxlen=3)

    def __str__(self) -> str:
        return repr(self.device)

    @property
    def over(self) -> str:
        if self._plugged is not None and self._plugged.in_use:
            return ""
        return "its connection has ended"

    def offer(self) -> None:
        self._errors.clear()
        self._plugged = self._exporter.plug(
            self._offered, busid=self.busid, observer=self._observer
        )

    def arrived(self, connection: socket.socket, peer: str) -> None:
        self._exporter.adopt(connection, peer=peer)

    def withdraw(self) -> None:
        if self._plugged is not None:
            self._plugged.unplug()

    def heard(self, error: str) -> None:
        """Its handler raised."""
        self._errors.append(error)

    def troubles(self) -> str:
        return "\n".join(self._errors)


class RemoteSource:
    """A device of another exporter, which this host reaches."""

    device = None

    def __init__(self, address: str, busid: str, timeout: float, where: str) -> None:
        try:
            self.address = parse_address(address)
        except ValueError as error:
            raise ConfigError(where, str(error)) from None
        self.text = address
        self.busid = busid
        self._timeout = timeout
        self._waiting: socket.socket | None = None
        self._relay: Relay | None = None
        self._lock = threading.Lock()

    def __str__(self) -> str:
        return f"{self.busid} of {self.text}"

    @property
    def over(self) -> str:
        return "" if self._relay is not None and self._relay.alive else "its connection has ended"

    def offer(self) -> None:
        """Connect. Raises NotThere."""
        try:
            self._waiting = socket.create_connection(self.address, self._timeout)
        except OSError as error:
            raise NotThere(
                f"no exporter answers at {self.text}: {error.strerror or error}",
                mend="start it, and give its address as this host reaches it",
            ) from error

    def arrived(self, connection: socket.socket, peer: str) -> None:  # noqa: ARG002
        with self._lock:
            theirs, self._waiting = self._waiting, None
            if theirs is None:
                connection.close()
            else:
                self._relay = Relay(connection, theirs)

    def withdraw(self) -> None:
        with self._lock:
            if self._relay is not None:
                self._relay.close()
            if self._waiting is not None:
                with contextlib.suppress(OSError):
                    self._waiting.close()
                self._waiting = None

    def heard(self, error: str) -> None:
        """Its handlers are another's."""

    def troubles(self) -> str:
        return ""
