"""Power by anybody's HTTP interface: a URL for on, one for off, one that says the state."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import quote

from pytest_hil.board.power import http_auth
from pytest_hil.board.power.http_client import HttpClient, url
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.described import described
from pytest_hil.config.driver import Secret, key, one_of, seconds, secret
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import ConfigError

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@described(type="object", additionalProperties={"type": "string"})
def headers(value: object) -> Mapping[str, str]:
    """A check for a table of header names and their values."""
    if not isinstance(value, dict):
        raise wrong_kind(value, 'a table: {Accept = "application/json"}')
    for name, text in value.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise BadValue(f"{shown(name)} is no name of a header")
        # Over the line they are Latin-1.
        if not values.text(text).isascii():
            raise BadValue(f"{shown(text)} has a character that no header may have")
    return dict(value)


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """Keys of a ``power`` table with ``driver = "http"``."""

    on_url: str = key(
        url,
        help="the URL that switches it on; {user} and {password} in it are replaced: "
        '"http://pdu.lab/outlet?id=3&state=on"',
    )
    off_url: str = key(url, help="the URL that switches it off")
    read_url: str | None = key(url, default=None, help="the URL that says the state, by GET")
    read_on: str | None = key(
        values.regex,
        default=None,
        help="a regular expression that is found in the text of read_url when it is on",
    )
    read_off: str | None = key(
        values.regex,
        default=None,
        help="one that is found when it is off; without it, all that read_on does not find is off",
    )
    method: str = key(
        one_of("GET", "POST", "PUT", "PATCH"), default="GET", help="of on_url and off_url"
    )
    body: str | None = key(
        values.script, default=None, help="what is sent to on_url and off_url, as it is"
    )
    on_body: str | None = key(values.script, default=None, help="what is sent to on_url instead")
    off_body: str | None = key(values.script, default=None, help="what is sent to off_url instead")
    headers: Mapping[str, str] | None = key(
        headers,
        default=None,
        help='of every request: {Authorization = "Bearer {password}"}; {user} and {password} in '
        "them are replaced",
    )
    user: str = key(values.text, default="", help="for HTTP authentication")
    password: Secret | None = key(
        secret, default=None, help='where its password is: {env = "PDU_PASSWORD"}'
    )
    auth: str = key(
        one_of("challenge", "basic"),
        default="challenge",
        help="challenge: the password is used as the server asks for it (Basic or Digest); basic: "
        "it is sent at once, for servers that do not ask",
    )
    timeout: float = key(seconds, default=10.0, help="of a whole request, in seconds")
    verify_tls: bool = key(
        values.boolean, default=True, help="with https, take only a certificate that can be trusted"
    )


class HttpPower:
    """Switches by requests; any answer of status 2xx is a yes."""

    Options: ClassVar[type] = HttpOptions

    def __init__(self, options: HttpOptions) -> None:
        """Raises ConfigError when keys do not fit together."""
        if (options.read_url is None) != (options.read_on is None):
            missing = "read_on" if options.read_on is None else "read_url"
            raise ConfigError(
                f'power {{driver = "http"}} {missing}',
                "missing",
                mend="read_url and read_on belong together",
            )
        if options.auth == "basic" and options.password is None:
            raise ConfigError(
                'power {driver = "http"} password',
                "missing",
                mend='auth = "basic" wants password = {env = "NAME"}',
            )
        self._options = options
        self._client = HttpClient(
            timeout=options.timeout,
            user=options.user,
            password=options.password,
            verify_tls=options.verify_tls,
        )

    def on(self) -> None:
        """Raises PowerError; InfrastructureError for what no repetition mends (401, 404 …)."""
        self._switch(self._options.on_url, self._options.on_body)

    def off(self) -> None:
        """Raises as :meth:`on`."""
        self._switch(self._options.off_url, self._options.off_body)

    def read(self) -> bool | None:
        """What read_url says; None without one. Raises as :meth:`on`, and PowerError when both or
        none of read_on and read_off are found.
        """
        options = self._options
        if options.read_url is None or options.read_on is None:
            return None
        answer = self._client.request(
            "GET", self._filled(options.read_url, quoted=True), headers=self._headers()
        )
        on = re.search(options.read_on, answer.text) is not None
        if options.read_off is None:
            return on
        if on == (re.search(options.read_off, answer.text) is not None):
            both = "read_on and read_off both match" if on else "neither read_on nor read_off match"
            raise PowerError(
                f"{answer.where}: {both} its answer{self._client.quoted(answer)}",
                mend="are the regular expressions right?",
            )
        return on

    def close(self) -> None:
        """Nothing is kept open."""

    def _switch(self, url: str, own: str | None) -> None:
        options = self._options
        text = own if own is not None else options.body
        body = None if text is None else text.encode()
        if body is None and options.method != "GET":
            # Without a length, servers wait for a body or refuse.
            body = b""
        self._client.request(
            options.method, self._filled(url, quoted=True), headers=self._headers(), body=body
        )

    def _headers(self) -> dict[str, str]:
        options = self._options
        found = {
            name: self._filled(text, quoted=False) for name, text in (options.headers or {}).items()
        }
        if options.auth == "basic" and options.password is not None:
            found["Authorization"] = http_auth.basic(options.user, options.password.reveal())
        return found

    def _filled(self, text: str, *, quoted: bool) -> str:
        """With {user} and {password}, where they are."""
        options = self._options
        for name, place in (("user", "{user}"), ("password", "{password}")):
            if place in text:
                value = options.user if name == "user" else self._revealed()
                text = text.replace(place, quote(value, safe="") if quoted else value)
        return text

    def _revealed(self) -> str:
        if self._options.password is None:
            raise ConfigError(
                'power {driver = "http"} password', "missing", mend="{password} stands for it"
            )
        return self._options.password.reveal()
