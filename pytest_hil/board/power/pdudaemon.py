"""PDUDaemon: a daemon that switches the PDUs of a lab for many users.

``/power/control/on?hostname=…&port=…`` (or ``?alias=…``) is answered with 200 when the PDU has
done it, and with 500 otherwise, whatever the reason. It cannot say the state. Source:
pdudaemon/httplistener.py and listener.py of github.com/pdudaemon/pdudaemon (1.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urlencode

from pytest_hil.board.power.http_client import HttpClient, device
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import key, seconds
from pytest_hil.config.values import BadValue, wrong_kind
from pytest_hil.errors import ConfigError


def outlet(value: object) -> str:
    """A check for the outlet's number, or its name: PDUDaemon hands it on as it is."""
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise wrong_kind(value, "an outlet's number or name")
    found = values.text(value)
    if not found:
        raise BadValue("it is empty", "write the outlet's number or name")
    return found


@dataclass(frozen=True, slots=True)
class PduDaemonOptions:
    """Keys of a ``power`` table with ``driver = "pdudaemon"``."""

    url: str = key(device, help='the daemon\'s address, with its port: "pdudaemon.lab:16421"')
    hostname: str = key(values.text, default="", help="the PDU's name in pdudaemon.conf")
    port: str = key(outlet, default="", help="the outlet of that PDU")
    alias: str = key(
        values.text, default="", help="an alias of pdudaemon.conf, instead of hostname and port"
    )
    timeout: float = key(
        seconds,
        default=60.0,
        help="how long it may take, in seconds: it answers when the PDU has done it, and tries "
        "several times",
    )


class PduDaemon:
    """One outlet of a PDU that a PDUDaemon has."""

    Options: ClassVar[type] = PduDaemonOptions

    def __init__(self, options: PduDaemonOptions) -> None:
        """Raises ConfigError unless it is hostname and port, or alias alone."""
        place = 'power {driver = "pdudaemon"}'
        if bool(options.alias) == bool(options.hostname or options.port):
            raise ConfigError(
                f"{place} hostname", "wanted are hostname and port, or alias, and not both"
            )
        for name in ("hostname", "port"):
            if not options.alias and not getattr(options, name):
                raise ConfigError(f"{place} {name}", "missing", mend="or write alias alone")
        self._options = options
        self._client = HttpClient(timeout=options.timeout)

    def on(self) -> None:
        """Raises PowerError; InfrastructureError when it is no PDUDaemon."""
        self._control("on")

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._control("off")

    def read(self) -> None:
        """It cannot say it."""

    def close(self) -> None:
        """Nothing is kept open."""

    def _control(self, word: str) -> None:
        options = self._options
        if options.alias:
            which, query = f"alias {options.alias!r}", {"alias": options.alias}
        else:
            which = f"port {options.port} of {options.hostname!r}"
            query = {"hostname": options.hostname, "port": options.port}
        answer = self._client.exchange(
            "GET", f"{options.url}/power/control/{word}?{urlencode(query)}"
        )
        if answer.status == 500:
            raise PowerError(
                f"the PDUDaemon at {options.url} did not switch {which} {word}"
                f"{self._client.quoted(answer)}",
                mend="is it in its pdudaemon.conf? Its log says why the PDU did not do it",
            )
        self._client.good(answer)
