"""Shelly plugs and relays, by their HTTP interface in the local network.

``/shelly`` says what it is, without a password: ``"gen"`` is 2 or more, or is not there on the
first generation.

1   ``/relay/0?turn=on`` → ``{"ison": true, …}``; HTTP Basic
2+  ``/rpc/Switch.Set?id=0&on=true`` → ``{"was_on": false}``, ``/rpc/Switch.GetStatus?id=0`` →
    ``{"output": true, …}``, errors → ``{"code": -105, "message": "…"}``; HTTP Digest with SHA-256,
    the user is always ``admin``

Source: shelly-api-docs.shelly.cloud, gen1 and gen2 (General/Authentication, Components/Switch).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from pytest_hil.board.power.http_client import Answer, HttpClient, device
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import Secret, count, key, seconds, secret
from pytest_hil.errors import InfrastructureError, visible

# Of an RPC: what a repetition does not mend (invalid or unknown argument, unknown method).
_LASTING = frozenset({-103, -105, -114, 400, 404})


@dataclass(frozen=True, slots=True)
class ShellyOptions:
    """Keys of a ``power`` table with ``driver = "shelly"``."""

    url: str = key(device, help='its address: "192.168.1.20", or "http://shelly.lab"')
    channel: int = key(count(0, 15), default=0, help="the number of the relay, from 0")
    user: str = key(values.text, default="admin", help="of a device that restricts its login")
    password: Secret | None = key(
        secret, default=None, help='where its password is: {env = "SHELLY_PASSWORD"}'
    )
    timeout: float = key(seconds, default=5.0, help="of each request, in seconds")


class Shelly:
    """One relay of such a device, of whatever generation."""

    Options: ClassVar[type] = ShellyOptions

    def __init__(self, options: ShellyOptions) -> None:
        self._options = options
        # It does not change while it is in use.
        self._generation: int | None = None

    def on(self) -> None:
        """Raises PowerError; InfrastructureError for what no repetition mends (a wrong password,
        a relay that is not there).
        """
        self._switch(True)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch(False)

    def read(self) -> bool:
        """What it says of the relay. Raises as :meth:`on`."""
        if self._asked_generation() == 1:
            return self._first("")
        status = self._rpc("GetStatus", "")
        return self._boolean(status, "output")

    def close(self) -> None:
        """Nothing is kept open."""

    def _switch(self, wanted: bool) -> None:
        word = "on" if wanted else "off"
        if self._asked_generation() > 1:
            # It answers what it was before; whoever wants to know what it is now reads it.
            self._boolean(self._rpc("Set", f"&on={'true' if wanted else 'false'}"), "was_on")
        elif self._first(f"?turn={word}") is not wanted:
            raise PowerError(
                f"{self._where} was told {word} and says the opposite",
                mend="has it switched itself off (overpower, overtemperature)?",
            )

    def _asked_generation(self) -> int:
        if self._generation is None:
            client = HttpClient(timeout=self._options.timeout)
            answer = client.request("GET", f"{self._options.url}/shelly")
            said = client.json(answer)
            found = said.get("gen", 1 if "type" in said else None)
            if type(found) is not int or found < 1:
                raise InfrastructureError(
                    f"{answer.where} is no Shelly's{client.quoted(answer)}",
                    mend="is the address right?",
                )
            self._generation = found
        return self._generation

    def _client(self, scheme: str) -> HttpClient:
        """The generation says how it proves a user; so nobody can ask for the password itself."""
        options = self._options
        return HttpClient(
            timeout=options.timeout,
            user=options.user,
            password=options.password,
            schemes=(scheme,),
        )

    def _first(self, query: str) -> bool:
        """A request to a relay of the first generation: whether it is on."""
        options, client = self._options, self._client("basic")
        answer = client.request("GET", f"{options.url}/relay/{options.channel}{query}")
        return self._boolean(client.json(answer), "ison")

    def _rpc(self, method: str, arguments: str) -> dict[str, Any]:
        options, client = self._options, self._client("digest")
        path = f"/rpc/Switch.{method}?id={options.channel}{arguments}"
        answer = client.exchange("GET", f"{options.url}{path}")
        if 200 <= answer.status < 300:
            return client.json(answer)
        if answer.status != 401:
            self._explain(client, answer)
        client.good(answer)
        raise AssertionError

    def _explain(self, client: HttpClient, answer: Answer) -> None:
        """Raises what an RPC's error object says, if there is one."""
        try:
            said = client.json(answer)
        except PowerError:
            return
        code, message = said.get("code"), said.get("message")
        if type(code) is not int or not isinstance(message, str):
            return
        sentence = f"{answer.where} refused channel {self._options.channel}: " + client.clean(
            f"{message[:200]} ({code})"
        )
        if code in _LASTING:
            raise InfrastructureError(sentence, mend="has it such a relay? They begin with 0")
        raise PowerError(sentence)

    def _boolean(self, said: dict[str, Any], name: str) -> bool:
        found = said.get(name)
        if not isinstance(found, bool):
            raise PowerError(
                f"{self._where} answered without {name!r}: {visible(repr(said))[:200]}",
                mend="is that channel a relay?",
            )
        return found

    @property
    def _where(self) -> str:
        return f"the Shelly at {self._options.url}"
