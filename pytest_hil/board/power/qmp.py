"""A QEMU machine of somebody's, by its monitor: on is reset and running, off is stopped."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import address, key, seconds
from pytest_hil.config.values import BadValue, shown

if TYPE_CHECKING:
    from qemu.qmp import QMPClient


def socket(value: object) -> str | tuple[str, int]:
    """A UNIX socket's absolute path, or ``"host:port"``."""
    found = values.text(value)
    if found.startswith("/"):
        return found
    try:
        return address(found)
    except BadValue:
        raise BadValue(
            f"{shown(found)} is no QMP socket", 'write "/run/…/qmp.sock" or "host:port"'
        ) from None


@dataclass(frozen=True, slots=True)
class QmpOptions:
    """Keys of a ``power`` table with ``driver = "qmp"``."""

    socket: str | tuple[str, int] = key(
        socket,
        help='the QMP socket, "/run/…/qmp.sock" or "host:port", of a QEMU that was started with '
        "-S -no-shutdown",
    )
    timeout: float = key(seconds, default=10.0, help="how long QEMU may take, in seconds")


class QmpPower:
    """The "power" of a QEMU that somebody else keeps running.

    It is connected only while it is spoken to: a QMP socket has one client at a time.
    """

    Options: ClassVar[type] = QmpOptions

    def __init__(self, options: QmpOptions) -> None:
        self._options = options

    def on(self) -> None:
        """From its reset vector, if it does not run already. Raises PowerError."""
        self._do(_on)

    def off(self) -> None:
        """Raises PowerError."""
        self._do(_off)

    def read(self) -> bool:
        """Whether its CPUs run. Raises PowerError."""
        return bool(self._do(_runs))

    def close(self) -> None:
        """It is not kept open."""

    def _do(self, what: Callable[[QMPClient], Awaitable[Any]]) -> Any:
        """In a thread of its own: this one may have an event loop that runs."""
        import asyncio
        from concurrent.futures import ThreadPoolExecutor

        from qemu.qmp import ExecuteError, QMPError

        where = _shown(self._options.socket)
        try:
            with ThreadPoolExecutor(1, "hil-qmp-power") as thread:
                return thread.submit(asyncio.run, self._talk(what)).result()
        except ExecuteError as error:
            raise PowerError(f"the QEMU at {where} refused: {error}") from error
        except TimeoutError as error:
            raise PowerError(
                f"the QEMU at {where} did not answer within {self._options.timeout:g} s",
                mend="its socket has one client at a time: is another one connected?",
            ) from error
        except (QMPError, OSError) as error:
            raise PowerError(
                f"no QEMU can be spoken to at {where}: {error}",
                mend="is it running? With -no-shutdown it stays when its guest switches off",
            ) from error

    async def _talk(self, what: Callable[[QMPClient], Awaitable[Any]]) -> Any:
        import asyncio
        import contextlib

        from qemu.qmp import QMPClient

        client = QMPClient("hil-power")
        # It tells of every lost connection as an error; for us the exception is enough.
        client.logger.setLevel(logging.CRITICAL + 1)
        async with asyncio.timeout(self._options.timeout):
            try:
                await client.connect(self._options.socket)
                return await what(client)
            finally:
                with contextlib.suppress(Exception):
                    await client.disconnect()


async def _runs(client: QMPClient) -> bool:
    status: Any = await client.execute("query-status")
    return bool(status["running"])


async def _off(client: QMPClient) -> None:
    await client.execute("stop")


async def _on(client: QMPClient) -> None:
    if await _runs(client):
        return  # as an outlet that is on already
    # The reset is only begun by the command, and QEMU does not go on before it is over if its
    # guest has switched itself off.
    with client.listener(("RESET", "SHUTDOWN")) as events:
        await client.execute("system_reset")
        event = await events.get()
    if event["event"] == "SHUTDOWN":
        raise PowerError(
            "the QEMU switches off where it should reset", mend="start it without -no-reboot"
        )
    await client.execute("cont")


def _shown(where: str | tuple[str, int]) -> str:
    return where if isinstance(where, str) else f"{where[0]}:{where[1]}"
