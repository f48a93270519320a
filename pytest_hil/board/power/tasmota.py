"""Plugs and relays with the Tasmota firmware, by its web commands.

``/cm?cmnd=Power1%20On`` is answered with ``{"POWER":"ON"}`` by a device with one relay, and with
``{"POWER1":"ON"}`` by one with several (or with SetOption26). Source:
tasmota.github.io/docs/Commands, and HandleHttpCommand and CmndPower of the firmware.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

from pytest_hil.board.power.http_client import HttpClient, device
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import Secret, count, key, seconds, secret
from pytest_hil.errors import InfrastructureError


@dataclass(frozen=True, slots=True)
class TasmotaOptions:
    """Keys of a ``power`` table with ``driver = "tasmota"``."""

    url: str = key(device, help='its address: "192.168.1.20", or "http://plug.lab:8080"')
    relay: int = key(count(1, 32), default=1, help="the number of the relay, from 1")
    user: str = key(values.text, default="admin", help="Tasmota's web user")
    password: Secret | None = key(
        secret, default=None, help='where its WebPassword is: {env = "PLUG_PASSWORD"}'
    )
    timeout: float = key(seconds, default=5.0, help="how long it may take, in seconds")


class Tasmota:
    """One relay of such a device."""

    Options: ClassVar[type] = TasmotaOptions

    def __init__(self, options: TasmotaOptions) -> None:
        self._options = options
        # It wants its password in the query, and nowhere else.
        self._client = HttpClient(
            timeout=options.timeout, user=options.user, password=options.password, schemes=()
        )

    def on(self) -> None:
        """Raises PowerError; InfrastructureError for what no repetition mends (a wrong password,
        a relay that is not there).
        """
        self._switch("On", wanted=True)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch("Off", wanted=False)

    def read(self) -> bool:
        """What it says of the relay. Raises as :meth:`on`."""
        return self._command("")

    def close(self) -> None:
        """Nothing is kept open."""

    def _switch(self, word: str, *, wanted: bool) -> None:
        if self._command(f" {word}") is not wanted:
            raise PowerError(
                f"the Tasmota at {self._options.url} was told {word} and says the opposite",
                mend="does a rule or an interlock of it forbid that?",
            )

    def _command(self, argument: str) -> bool:
        options, client = self._options, self._client
        query = f"cmnd={quote(f'Power{options.relay}{argument}')}"
        if options.password is not None:
            user, password = quote(options.user, safe=""), quote(options.password.reveal(), safe="")
            query = f"user={user}&password={password}&{query}"
        answer = client.exchange(
            "GET",
            f"{options.url}/cm?{query}",
            # Without SetOption128 it obeys only who comes from its own pages.
            headers={
                "Referer": f"{urlsplit(options.url).scheme}://{urlsplit(options.url).netloc}/"
            },
        )
        # Firmware before 8.2.0.4 says of a wrong password only in words, with status 200.
        if answer.status == 401 or "need user=" in answer.text.lower():
            raise client.refused(answer)
        return self._state(client.json(client.good(answer)), client.quoted(answer))

    def _state(self, said: dict[str, Any], quoted: str) -> bool:
        options = self._options
        names = [f"POWER{options.relay}", "POWER"][: 2 if options.relay == 1 else 1]
        for name in names:
            state = said.get(name)
            if isinstance(state, str) and state.upper() in ("ON", "OFF"):
                return state.upper() == "ON"
        where = f"the Tasmota at {options.url}"
        if said.get("Command") == "Unknown":
            raise InfrastructureError(
                f"{where} does not know the command Power{options.relay}",
                mend="has it a relay? Its template or module may be set up wrongly",
            )
        raise InfrastructureError(
            f"{where} says nothing of relay {options.relay}{quoted}",
            mend="has it so many relays?",
        )
