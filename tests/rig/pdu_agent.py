"""PDUs that are spoken to by SNMP: pysnmp's own agent on loopback, with outlets behind it.

The numbers are of PowerNet-MIB, PDU2-MIB and EATON-EPDU-MIB, written down here once more and by
their tables, so that a wrong one of the drivers' is seen.
"""

from __future__ import annotations

import asyncio
import importlib
import socket
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

AUTH, PRIV = "auth-pass phrase", "priv-pass phrase"
ENTERPRISES = (1, 3, 6, 1, 4, 1)


@dataclass
class Outlets:
    """What a PDU's tables show of its outlets, ``(unit, outlet)``, and what they do when set."""

    # Seconds from a command until the relay has moved.
    delay: float = 0.0
    stuck: bool = False
    # An SNMP error, of pysnmp.smi.error, for all that is set.
    failing: str = ""
    states: dict[tuple[int, int], bool] = field(
        default_factory=lambda: {
            (unit, outlet): False for unit in (0, 1, 2) for outlet in (1, 2, 8)
        }
    )
    _moves: list[tuple[float, tuple[int, int], bool]] = field(default_factory=list)

    def tell(self, outlet: tuple[int, int], on: bool) -> None:
        if not self.stuck:
            self._moves.append((time.monotonic() + self.delay, outlet, on))

    def now(self, outlet: tuple[int, int]) -> bool:
        for when, which, on in [*self._moves]:
            if when <= time.monotonic():
                self.states[which] = on
                self._moves.remove((when, which, on))
        return self.states[outlet]

    def pending(self, outlet: tuple[int, int]) -> bool:
        self.now(outlet)
        return any(which == outlet for _, which, _ in self._moves)


class Apc(Outlets):
    """sPDUOutletCtl: one column for both; a single PDU."""

    COLUMN = (318, 1, 1, 4, 4, 2, 1, 3)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (1, oid[-1])
        if oid[:-1] != self.COLUMN or outlet not in self.states:
            return None
        return 1 if self.now(outlet) else 2

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if self.get(oid) is None or value not in (1, 2):
            return False
        self.tell((1, oid[-1]), value == 1)
        return True


class Apc2(Outlets):
    """rPDU2OutletSwitchedControlCommand: on(1), off(2); …StatusState: off(1), on(2)."""

    COMMAND = (318, 1, 1, 26, 9, 2, 4, 1, 5)
    STATE = (318, 1, 1, 26, 9, 2, 3, 1, 5)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (1, oid[-1])
        if outlet not in self.states or oid[:-1] not in (self.COMMAND, self.STATE):
            return None
        on = self.now(outlet)
        return (2 if on else 1) if oid[:-1] == self.STATE else (1 if on else 2)

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-1] != self.COMMAND or self.get(oid) is None or value not in (1, 2):
            return False
        self.tell((1, oid[-1]), value == 1)
        return True


class Raritan(Outlets):
    """switchingOperation: off(0), on(1); outletSwitchingState: on(7), off(8)."""

    OPERATION = (13742, 6, 4, 1, 2, 1, 2)
    STATE = (13742, 6, 4, 1, 2, 1, 3)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (oid[-2], oid[-1])
        # Its pduId begins with 1.
        if outlet not in self.states or oid[-2] == 0:
            return None
        if oid[:-2] == self.STATE:
            return 7 if self.now(outlet) else 8
        return int(self.now(outlet)) if oid[:-2] == self.OPERATION else None

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-2] != self.OPERATION or self.get(oid) is None or value not in (0, 1):
            return False
        self.tell((oid[-2], oid[-1]), value == 1)
        return True


class Eaton(Outlets):
    """outletControlStatus: off(0), on(1), pendingOff(2), pendingOn(3); …OffCmd, …OnCmd: seconds."""

    STATUS = (534, 6, 6, 7, 6, 6, 1, 2)
    OFF = (534, 6, 6, 7, 6, 6, 1, 3)
    ON = (534, 6, 6, 7, 6, 6, 1, 4)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        outlet = (oid[-2], oid[-1])
        if outlet not in self.states:
            return None
        if oid[:-2] == self.STATUS:
            on = self.now(outlet)
            return (2 if on else 3) if self.pending(outlet) else int(on)
        return -1 if oid[:-2] in (self.OFF, self.ON) else None

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if oid[:-2] not in (self.OFF, self.ON) or self.get(oid) is None or value != 0:
            return False
        self.tell((oid[-2], oid[-1]), oid[:-2] == self.ON)
        return True


class Words(Outlets):
    """Nobody's: a column of strings."""

    COLUMN = (99999, 1)

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        if oid[:-1] != self.COLUMN or (1, oid[-1]) not in self.states:
            return None
        return "läuft" if self.now((1, oid[-1])) else "aus"

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if self.get(oid) is None or value not in (b"an", b"aus"):
            return False
        self.tell((1, oid[-1]), value == b"an")
        return True


class PduAgent:
    """An agent on a free port. The community "private" writes, "public" reads; so does the v3 user
    "bob" with AUTH and PRIV, and "eve", without a password, reads.
    """

    def __init__(
        self, outlets: Any, *, auth: str = "USM_AUTH_HMAC96_SHA", priv: str = "USM_PRIV_CFB128_AES"
    ) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.outlets = outlets
        self._protocols = auth, priv
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._ready.wait(20)
        if self._failed:
            raise self._failed

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._open())
        except BaseException as error:
            self._failed = error
        else:
            self._loop.call_soon(self._ready.set)
            self._loop.run_forever()
            self._engine.close_dispatcher()
            self._loop.run_until_complete(asyncio.sleep(0))
        finally:
            self._ready.set()
            self._loop.close()

    async def _open(self) -> None:
        udp = _pysnmp("carrier.asyncio.dgram.udp")
        config, engine = _pysnmp("entity.config"), _pysnmp("entity.engine")
        cmdrsp, context = _pysnmp("entity.rfc3413.cmdrsp"), _pysnmp("entity.rfc3413.context")

        self._engine = engine.SnmpEngine()
        transport = udp.UdpTransport().open_server_mode(("127.0.0.1", self.port))
        config.add_transport(self._engine, (*udp.DOMAIN_NAME, 1), transport)
        auth, priv = (getattr(config, name) for name in self._protocols)
        config.add_v1_system(self._engine, "reader", "public")
        config.add_v1_system(self._engine, "writer", "private")
        config.add_v3_user(self._engine, "bob", auth, AUTH, priv, PRIV)
        config.add_v3_user(self._engine, "eve")
        # pysnmp lets write who has no view at all; so readers may write what is not there.
        everything, nothing = (1, 3, 6), (1, 2)
        for version in (1, 2):
            config.add_vacm_user(
                self._engine, version, "reader", "noAuthNoPriv", everything, nothing
            )
            config.add_vacm_user(
                self._engine, version, "writer", "noAuthNoPriv", everything, everything
            )
        config.add_vacm_user(self._engine, 3, "bob", "authPriv", everything, everything)
        config.add_vacm_user(self._engine, 3, "eve", "noAuthNoPriv", everything, nothing)
        where = context.SnmpContext(self._engine)
        where.unregister_context_name(b"")
        where.register_context_name(b"", _controller(self))
        cmdrsp.GetCommandResponder(self._engine, where)
        cmdrsp.SetCommandResponder(self._engine, where)
        await asyncio.sleep(0)

    def __enter__(self) -> PduAgent:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()


def _pysnmp(part: str) -> Any:
    """A module of it: it has no types."""
    return importlib.import_module(f"pysnmp.{part}")


def _controller(agent: PduAgent) -> Any:
    v2c, error = _pysnmp("proto.api.v2c"), _pysnmp("smi.error")
    base: Any = _pysnmp("smi.instrum").AbstractMibInstrumController

    class Controller(base):  # type: ignore[misc]
        def read_variables(self, *bindings: Any, **context: Any) -> Any:
            return [(name, self._read(name, context)) for name, _ in bindings]

        def _read(self, name: Any, context: Any) -> Any:
            # True: it is in no view of theirs.
            if context["acFun"]("read", (name, None), **context):
                return v2c.NoSuchInstance()
            oid = tuple(name)
            found = agent.outlets.get(oid[6:]) if oid[:6] == ENTERPRISES and len(oid) > 8 else None
            if found is None:
                return v2c.NoSuchInstance()
            if isinstance(found, str):
                return v2c.OctetString(found.encode())
            return v2c.Integer32(found)

        def write_variables(self, *bindings: Any, **context: Any) -> Any:
            for index, (name, value) in enumerate(bindings):
                if context["acFun"]("write", (name, value), **{**context, "idx": index}):
                    raise error.NoAccessError(name=name, idx=index)
                if agent.outlets.failing:
                    raise getattr(error, agent.outlets.failing)(name=name, idx=index)
                plain = int(value) if isinstance(value, v2c.Integer32) else bytes(value)
                oid = tuple(name)
                if oid[:6] != ENTERPRISES or not agent.outlets.set(oid[6:], plain):
                    raise error.NotWritableError(name=name, idx=index)
            return bindings

    return Controller()
