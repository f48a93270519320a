"""A PDU as SNMP shows it: pysnmp's own agent on loopback, with outlets behind it."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Sequence
from typing import Any, Protocol

from pytest_hil.errors import InfrastructureError
from pytest_hil.rig.board import RigBoard
from pytest_hil.usbip.loop import LoopThread

READS, WRITES = "public", "private"
"""The communities."""
AUTH, PRIV = "auth-pass phrase", "priv-pass phrase"
"""The passwords of the v3 user "bob"; "eve" has none, and may only read."""

# sPDUOutletCtl of PowerNet-MIB, below 1.3.6.1.4.1: outletOn(1), outletOff(2).
_APC_OUTLET = (318, 1, 1, 4, 4, 2, 1, 3)
_ENTERPRISES = (1, 3, 6, 1, 4, 1)


class Outlets(Protocol):
    """What a PDU's tables show, by names below 1.3.6.1.4.1. Called in the agent's thread."""

    failing: str
    """An SNMP error, of pysnmp.smi.error, for all that is set."""

    def get(self, oid: tuple[int, ...]) -> int | str | None:
        """A value; None: there is no such thing."""

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        """Whether it could be done."""


class PduAgent:
    """An agent on a free port. The community "private" writes, "public" reads; so does the v3 user
    "bob" with AUTH and PRIV, and "eve", without a password, reads. A context manager.
    """

    def __init__(
        self,
        outlets: Outlets,
        *,
        auth: str = "USM_AUTH_HMAC96_SHA",
        priv: str = "USM_PRIV_CFB128_AES",
    ) -> None:
        self.outlets = outlets
        _pysnmp("entity.engine")
        self._thread = LoopThread("hil-rig-snmp")
        try:
            # Bound here, so that the port is nobody else's before the agent has it.
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
                bound.bind(("127.0.0.1", 0))
                self.port = int(bound.getsockname()[1])
                self._engine = self._thread.wait(self._open(bound.dup(), auth, priv))
        except BaseException:
            self._thread.close()
            raise

    async def _open(self, bound: socket.socket, auth: str, priv: str) -> Any:
        udp = _pysnmp("carrier.asyncio.dgram.udp")
        config, engine_of = _pysnmp("entity.config"), _pysnmp("entity.engine")
        cmdrsp, context = _pysnmp("entity.rfc3413.cmdrsp"), _pysnmp("entity.rfc3413.context")

        engine = engine_of.SnmpEngine()
        bound.setblocking(False)
        transport = udp.UdpTransport().open_server_mode(sock=bound)
        config.add_transport(engine, (*udp.DOMAIN_NAME, 1), transport)
        _users(engine, getattr(config, auth), getattr(config, priv))
        where = context.SnmpContext(engine)
        where.unregister_context_name(b"")
        where.register_context_name(b"", _controller(self))
        cmdrsp.GetCommandResponder(engine, where)
        cmdrsp.SetCommandResponder(engine, where)
        await _turn()
        return engine

    def close(self) -> None:
        """It does not answer any more. May be called twice."""

        async def end() -> None:
            self._engine.close_dispatcher()
            await _turn()

        if self._engine is not None:
            self._thread.wait(end())
            self._engine = None
            self._thread.close()

    def __enter__(self) -> PduAgent:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class SnmpPower:
    """A switched rack PDU of APC's, with an outlet for each board."""

    failing = ""

    def __init__(self, boards: Sequence[RigBoard]) -> None:
        self._boards = {board.number: board for board in boards}
        self._agent = PduAgent(self)

    def table(self, board: RigBoard) -> dict[str, object]:
        """What switches this board, for boards.toml."""
        return {
            "driver": "snmp",
            "host": f"127.0.0.1:{self._agent.port}",
            "model": "apc",
            "outlet": board.number,
            # It has moved when it answers; or it is stuck.
            "settle": 0.5,
        }

    def get(self, oid: tuple[int, ...]) -> int | None:
        board = self._boards.get(oid[-1])
        if oid[:-1] != _APC_OUTLET or board is None:
            return None
        return 1 if board.relay else 2

    def set(self, oid: tuple[int, ...], value: Any) -> bool:
        if self.get(oid) is None or value not in (1, 2):
            return False
        self._boards[oid[-1]].power(value == 1)
        return True

    def close(self) -> None:
        """Nobody can switch any more. May be called twice."""
        self._agent.close()


async def _turn() -> None:
    import asyncio

    await asyncio.sleep(0)


def _pysnmp(part: str) -> Any:
    """A module of it: it has no types."""
    try:
        return importlib.import_module(f"pysnmp.{part}")
    except ImportError:
        raise InfrastructureError(
            "pysnmp is not installed", mend="install it: pip install 'pytest-hil[snmp]'"
        ) from None


def _users(engine: Any, auth: Any, priv: Any) -> None:
    config = _pysnmp("entity.config")
    config.add_v1_system(engine, "reader", READS)
    config.add_v1_system(engine, "writer", WRITES)
    config.add_v3_user(engine, "bob", auth, AUTH, priv, PRIV)
    config.add_v3_user(engine, "eve")
    # pysnmp lets write who has no view at all; so readers may write what is not there.
    everything, nothing = (1, 3, 6), (1, 2)
    for version in (1, 2):
        config.add_vacm_user(engine, version, "reader", "noAuthNoPriv", everything, nothing)
        config.add_vacm_user(engine, version, "writer", "noAuthNoPriv", everything, everything)
    config.add_vacm_user(engine, 3, "bob", "authPriv", everything, everything)
    config.add_vacm_user(engine, 3, "eve", "noAuthNoPriv", everything, nothing)


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
            below = oid[:6] == _ENTERPRISES and len(oid) > 8
            found = agent.outlets.get(oid[6:]) if below else None
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
                if oid[:6] != _ENTERPRISES or not agent.outlets.set(oid[6:], plain):
                    raise error.NotWritableError(name=name, idx=index)
            return bindings

    return Controller()
