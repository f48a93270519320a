"""Offering devices to importers over USB/IP."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Protocol

from pytest_hil.errors import ConfigError, InfrastructureError, NotThere
from pytest_hil.usbip.loop import LoopThread
from pytest_hil.usbip.messages import BUSID_SIZE, Bytes, Device, IsoPacket, OpStatus
from pytest_hil.usbip.session import Limits, Session
from pytest_hil.usbip.urb import Exportable, Urb

__all__ = ["Exporter", "Limits", "Observer", "Plugged"]

Events = Callable[..., None]

# Seconds for an importer to be thrown out, which no importer can delay.
_UNPLUG = 30.0


class Observer(Protocol):
    """Sees every transfer of a device; any thread may call."""

    def submitted(self, urb: Urb, description: Device) -> None:
        """It was asked for."""

    def completed(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket]
    ) -> None:
        """It ended. ``data`` is what an IN brought."""


class Plugged:
    """A device that is offered, until it is unplugged."""

    def __init__(
        self,
        exporter: Exporter,
        device: Exportable,
        description: Device,
        observer: Observer | None,
        importers: Guests | None,
    ) -> None:
        self.device = device
        self.description = description
        self.observer = observer
        self.importers = importers
        self._exporter = exporter
        self._changed = threading.Condition()
        self._session: Session | None = None
        self._imports = 0

    def __repr__(self) -> str:
        return f"<Plugged {self.busid}{' in use' if self.in_use else ''}>"

    @property
    def busid(self) -> str:
        """What importers ask for."""
        return self.description.busid

    @property
    def in_use(self) -> bool:
        """Whether an importer has it."""
        return self._session is not None

    @property
    def importer(self) -> str:
        """Who has it; "" if nobody does."""
        session = self._session
        return session.peer if session is not None else ""

    def unplug(self) -> None:
        """Take it away, from its importer too. May be called twice, from any thread."""
        self._exporter.unplug(self)

    def wait_imported(self, timeout: float) -> None:
        """Until an importer has it. Raises NotThere after ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: self.in_use, timeout):
                raise NotThere(f"nobody imported {self.busid} within {timeout:g} s")

    def wait_released(self, timeout: float) -> None:
        """Until no importer has it. Raises NotThere after ``timeout`` seconds."""
        with self._changed:
            if not self._changed.wait_for(lambda: not self.in_use, timeout):
                raise NotThere(f"{self.importer} still has {self.busid} after {timeout:g} s")

    def __enter__(self) -> Plugged:
        return self

    def __exit__(self, *exc: object) -> None:
        self.unplug()

    # for the exporter

    @property
    def session(self) -> Session | None:
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        with self._changed:
            self._session = session
            self._changed.notify_all()


class Guests:
    """Who may come: addresses, networks ("10.0.0.0/8"), names of adopted connections, or "*"."""

    def __init__(self, allow: Collection[str], where: str) -> None:
        self._all = "*" in allow
        self._names = frozenset(allow)
        self._networks = []
        for text in self._names - {"*"}:
            try:
                self._networks.append(ipaddress.ip_network(text, strict=False))
            except ValueError:
                if any(sign in text for sign in "./: "):
                    raise ConfigError(
                        where, f"{text!r} is no address, no network and no name of a peer"
                    ) from None

    def __contains__(self, peer: str) -> bool:
        if self._all or peer in self._names:
            return True
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return any(address in network for network in self._networks)


class Exporter:
    """Listens and serves, from when it is made until it is closed.

    ``port`` 0 lets the kernel pick, and None listens nowhere: connections are then given to
    :meth:`adopt`. On another ``host`` than loopback, ``allow`` must say who may come: there is no
    password in USB/IP. ``events`` is called as ``events("usb", what=…, …)`` with plain values.

    Raises ConfigError, and InfrastructureError when it cannot listen.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int | None = 0,
        allow: Collection[str] = (),
        limits: Limits | None = None,
        events: Events | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._guests = _guests(host, allow)
        self._events = events
        self._lock = threading.Lock()
        self._plugged: dict[str, Plugged] = {}
        self._numbers = 1
        self._sessions: set[Session] = set()
        self._closed = False
        self._server: asyncio.AbstractServer | None = None
        self._address: tuple[str, int] | None = None
        self._loop = LoopThread("hil-usbip-exporter")
        if port is not None:
            try:
                self._server = self._loop.wait(self._listen(host, port))
            except OSError as error:
                self._loop.close()
                raise InfrastructureError(
                    f"the exporter cannot listen on {host}:{port}: {error.strerror or error}",
                    mend="port 0 takes one that is free",
                ) from None
            except BaseException:
                self._loop.close()
                raise
            name = self._server.sockets[0].getsockname()  # type: ignore[attr-defined]
            self._address = (name[0], name[1])

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port where it listens. Raises NotThere if it does not."""
        if self._address is None:
            raise NotThere("this exporter listens nowhere: it was made with port=None")
        return self._address

    def plug(
        self,
        device: Exportable,
        *,
        busid: str = "",
        importers: Collection[str] | None = None,
        observer: Observer | None = None,
    ) -> Plugged:
        """Offer a device, from now on, to all that may come, or only to ``importers``.

        Raises ConfigError for a bus id that is taken or none, InfrastructureError when closed.
        """
        with self._lock:
            if self._closed:
                raise InfrastructureError("the exporter is closed")
            known = {one.description.devnum for one in self._plugged.values()}
            busid = busid or self._free_busid()
            _check_busid(busid)
            if busid in self._plugged:
                raise ConfigError("busid", f"{busid} is taken by another device")
            if any(one.device is device for one in self._plugged.values()):
                raise ConfigError("plug", f"{device!r} is plugged in already")
            number = next((n for n in range(2, 256) if n not in known), None)
            if number is None:
                raise InfrastructureError("an exporter has room for 254 devices")
            told = device.describe()
            description = replace(
                told,
                interface_count=len(told.interfaces),
                busid=busid,
                busnum=1,
                devnum=number,
                path=f"/pytest-hil/{busid}",
            )
            guests = None if importers is None else Guests(importers, "importers")
            plugged = Plugged(self, device, description, observer, guests)
            self._plugged[busid] = plugged
        device.plugged(plugged.unplug)
        self.tell("plug", busid=busid, device=type(device).__name__)
        return plugged

    def unplug(self, plugged: Plugged) -> None:
        """Take a device away; its importer loses it at once."""
        with self._lock:
            mine = self._plugged.get(plugged.busid) is plugged
            if mine:
                del self._plugged[plugged.busid]
        if mine:
            self.tell("unplug", busid=plugged.busid)
        session = plugged.session
        if session is None:
            return
        if self._loop.soon(session.abort) and not self._loop.inside:
            plugged.wait_released(_UNPLUG)

    def adopt(self, sock: socket.socket, *, peer: str = "") -> None:
        """Serve a connection that somebody else accepted, and close it at its end.

        Nobody asks the allow-list for it, only those of its devices, for the name ``peer``.
        """
        sock.setblocking(False)

        async def serve() -> None:
            loop = asyncio.get_running_loop()
            await loop.connect_accepted_socket(lambda: self._session(peer or "adopted"), sock)

        try:
            self._loop.wait(serve())
        except BaseException:
            sock.close()
            raise

    def devices(self) -> list[Device]:
        """What is offered now."""
        with self._lock:
            return [one.description for one in self._plugged.values()]

    @property
    def connections(self) -> int:
        """How many importers are there now, with a device or without."""
        return len(self._sessions)

    def close(self) -> None:
        """Take everything away and stop. May be called twice."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            plugged = list(self._plugged.values())
        try:
            for one in plugged:
                one.unplug()
            self._loop.wait(self._close())
        finally:
            self._loop.close()

    def __enter__(self) -> Exporter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # --- in the loop's thread ---

    async def _listen(self, host: str, port: int) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._accept, host, port, backlog=128)

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
        for session in list(self._sessions):
            session.abort()
        while self._sessions:
            # connection_lost comes with the loop's next turn.
            await asyncio.sleep(0)

    def _accept(self) -> asyncio.BufferedProtocol:
        return _Door(self)

    def _session(self, peer: str) -> Session:
        session = Session(self, peer)
        self._sessions.add(session)
        return session

    def may_come(self, peer: str) -> bool:
        """Whether this address is on the allow-list, and there is room."""
        if peer not in self._guests:
            self.tell("refused", peer=peer, status="not allowed")
            return False
        if len(self._sessions) > self.limits.connections:
            self.tell("refused", peer=peer, status="too many connections")
            return False
        return True

    # what sessions ask

    def soon(self, call: Callable[[], object]) -> None:
        self._loop.soon(call)

    def devices_for(self, peer: str) -> list[Device]:
        with self._lock:
            return [
                one.description
                for one in self._plugged.values()
                if one.importers is None or peer in one.importers
            ]

    def take(self, busid: str, session: Session) -> Plugged | OpStatus:
        with self._lock:
            plugged = self._plugged.get(busid)
            if plugged is None:
                return OpStatus.NODEV
            if plugged.importers is not None and session.peer not in plugged.importers:
                # To those who may not have it, it is not there.
                return OpStatus.NODEV
            if plugged.session is not None:
                return OpStatus.DEV_BUSY
            plugged.session = session
            return plugged

    def left(self, session: Session) -> None:
        self._sessions.discard(session)
        if session.plugged is not None:
            session.plugged.session = None
            self.tell("released", busid=session.plugged.busid, peer=session.peer)

    def tell(self, what: str, **facts: object) -> None:
        if self._events is not None:
            self._events("usb", what=what, **facts)

    # --- how ---

    def _free_busid(self) -> str:
        number = 1
        while f"1-{number}" in self._plugged:
            number += 1
        return f"1-{number}"


class _Door(Session):
    """A session that asks first who comes."""

    def __init__(self, exporter: Exporter) -> None:
        super().__init__(exporter, "")
        self._exporter = exporter

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        name = transport.get_extra_info("peername")
        self.peer = str(name[0]) if name else ""
        self._exporter._sessions.add(self)
        super().connection_made(transport)
        if not self._exporter.may_come(self.peer):
            self.abort()


def _guests(host: str, allow: Collection[str]) -> Guests:
    if allow:
        return Guests(allow, "allow")
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ConfigError(
            "host",
            f"on {host or 'all addresses'} everybody could use the devices: USB/IP has no password",
            mend='name who may: allow=["192.168.1.0/24"], or allow=["*"] for everybody',
        )
    return Guests(["127.0.0.0/8", "::1"], "allow")


def _check_busid(busid: str) -> None:
    if not busid.isascii() or not busid.isprintable() or not 0 < len(busid) < BUSID_SIZE:
        raise ConfigError(
            "busid", f"{busid!r} is no bus id: 1 to {BUSID_SIZE - 1} ASCII characters, as in 1-1.2"
        )
