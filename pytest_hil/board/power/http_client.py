"""HTTP as network power switches need it: a small request, a small answer, all of it in time.

Proxies of the environment are not used: what switches a board's power stands in the lab. What is
said of a request in an error is its address without the query: passwords may be in that.
"""

from __future__ import annotations

import io
import json
import re
import socket
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote, quote_plus, urljoin, urlsplit

from pytest_hil.board.power import http_auth
from pytest_hil.board.power.switch import PowerError
from pytest_hil.config import values
from pytest_hil.config.driver import Secret
from pytest_hil.config.driver import url as any_url
from pytest_hil.config.values import BadValue, shown
from pytest_hil.errors import InfrastructureError, visible

# When the first request is made: it takes 7 ms, with ssl, and each run of pytest on a board
# imports this module to check boards.toml.
if TYPE_CHECKING:
    import http.client

# Bytes of an answer; and characters of it that an error shows.
LARGEST = 256 * 1024
_SHOWN = 200

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
# Of the 4xx, those that may be gone the next time.
_TRANSIENT = frozenset({408, 421, 425, 429})


def url(value: object) -> str:
    """A check for a URL without a password in it."""
    found = values.text(value)
    any_url(found)
    parts = urlsplit(found)
    try:
        _ = parts.port
    except ValueError:
        raise BadValue(f"{shown(found)} has a port that is none", "1 to 65535") from None
    if parts.username is not None or parts.password is not None:
        raise BadValue(
            "it has a user or a password in it",
            'write them as user = "…" and password = {env = "NAME"}',
        )
    return found


def device(value: object) -> str:
    """A check for a device's address: ``"192.168.1.20"``, ``"plug.lab:8080"``, or a URL."""
    found = values.text(value)
    if "://" not in found:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+(:[0-9]+)?|\[[0-9A-Fa-f:.]+\](:[0-9]+)?", found):
            raise BadValue(
                f"{shown(found)} is no address", 'write "192.168.1.20", or "http://plug.lab:8080"'
            )
        found = f"http://{found}"
    found = url(found)
    if urlsplit(found).query or urlsplit(found).fragment:
        raise BadValue(f"{shown(found)} has a query", "write the device's address alone")
    return found.rstrip("/")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. ``where`` names the device and the path, for errors."""

    where: str
    status: int
    challenges: tuple[str, ...]
    location: str
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class HttpClient:
    """Speaks to one device. Each request is a connection of its own.

    ``timeout``: seconds for a whole request, with its authentication and redirects. ``schemes``:
    what the password may be used for; Basic gives it to whoever listens.
    """

    def __init__(
        self,
        *,
        timeout: float,
        user: str = "",
        password: Secret | None = None,
        verify_tls: bool = True,
        schemes: Collection[str] = ("basic", "digest"),
    ) -> None:
        self._timeout = timeout
        self._user = user
        self._password = password
        self._verify_tls = verify_tls
        self._schemes = schemes

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """An answer of status 2xx. Raises PowerError; InfrastructureError where no repetition
        would help (401, 403, 404 …).
        """
        return self.good(self.exchange(method, url, headers=headers, body=body))

    def exchange(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """An answer of whatever status, after redirects and authentication. Raises PowerError."""
        until = time.monotonic() + self._timeout
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._authorised(method, url, dict(headers or {}), body, until)
            if answer.status not in _REDIRECTS or not answer.location:
                return answer
            url = self._redirected(url, answer)
            if answer.status == 303 or (answer.status in (301, 302) and method == "POST"):
                method, body = "GET", None
        raise PowerError(f"{_place(url)} redirects without end")

    def good(self, answer: Answer) -> Answer:
        """The answer itself. Raises as :meth:`request` when its status is not 2xx."""
        status = answer.status
        if 200 <= status < 300:
            return answer
        if status == 401:
            raise self.refused(answer)
        import http.client

        reason = http.client.responses.get(status, "")
        message = f"{answer.where} answered {status} {reason}".rstrip() + self.quoted(answer)
        if status == 404:
            raise InfrastructureError(
                message, mend="is it this kind of device, and the path right?"
            )
        if 400 <= status < 500 and status not in _TRANSIENT:
            raise InfrastructureError(message)
        raise PowerError(message)

    def refused(self, answer: Answer) -> InfrastructureError:
        """The error for a user and password that the device does not take."""
        if self._password is None:
            return InfrastructureError(
                f"{answer.where} wants a user and a password",
                mend='write password = {env = "NAME"} (and user, if it is not the usual one)',
            )
        schemes = {one.split()[0].lower() for one in answer.challenges if one.split()}
        if self._schemes and schemes and http_auth.best(answer.challenges, self._schemes) is None:
            return InfrastructureError(
                f"{answer.where} wants authentication by {', '.join(sorted(schemes))}, "
                f"allowed here: {', '.join(sorted(self._schemes))}"
            )
        return InfrastructureError(
            f"{answer.where} refused the user {self._user!r} with its password",
            mend="are both right, and may that user switch?",
        )

    def json(self, answer: Answer) -> dict[str, Any]:
        """The object that an answer holds. Raises PowerError when it holds none."""
        try:
            found = json.loads(answer.body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise PowerError(
                f"{answer.where} did not answer with a JSON object{self.quoted(answer)}",
                mend="is it this kind of device?",
            )
        return found

    def quoted(self, answer: Answer) -> str:
        """``: the beginning of its text``, or nothing if there is none."""
        text = " ".join(self.clean(answer.text).split())
        return f": {text[:_SHOWN]}{'…' * (len(text) > _SHOWN)}" if text else ""

    def clean(self, text: str) -> str:
        """What somebody else said, for an error: without our password, and steering no terminal."""
        password = self._password.reveal() if self._password else ""
        if password:
            basic = http_auth.basic(self._user, password).removeprefix("Basic ")
            inner = json.dumps(password)[1:-1]
            forms = {password, quote(password), quote(password, safe=""), quote_plus(password)}
            for form in sorted({*forms, inner, basic}, key=len, reverse=True):
                text = text.replace(form, "***")
        return visible(text)

    def _authorised(
        self,
        method: str,
        url: str,
        headers: dict[str, str],
        body: bytes | None,
        until: float,
    ) -> Answer:
        answer = self._once(method, url, headers, body, until)
        # A second time only when the nonce was too old.
        for _ in range(2):
            if answer.status != 401 or self._password is None:
                return answer
            challenge = http_auth.best(answer.challenges, self._schemes)
            if challenge is None or ("Authorization" in headers and not challenge.stale):
                return answer
            proof = challenge.answer(
                user=self._user,
                password=self._password.reveal(),
                method=method,
                target=_target(urlsplit(url)),
            )
            headers["Authorization"] = proof
            answer = self._once(method, url, headers, body, until)
        return answer

    def _once(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, until: float
    ) -> Answer:
        import http.client
        import ssl

        parts = urlsplit(url)
        where = _place(url)
        connection = self._connection(parts, max(0.001, until - time.monotonic()))
        line = None
        try:
            connection.connect()
            connection.sock = line = _InTime(connection.sock, until)
            connection.request(
                method,
                _target(parts),
                body=body,
                headers={"Connection": "close", "Accept": "*/*", **headers},
            )
            return _received(connection.getresponse(), where)
        except TimeoutError as error:
            raise PowerError(
                f"{where} did not answer within {self._timeout:g} s",
                mend="is it switched on and in this network? timeout = … gives it longer",
            ) from error
        except ConnectionRefusedError as error:
            raise PowerError(
                f"{where} refused the connection", mend="is it this device, and this port?"
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise InfrastructureError(
                f"{where}: its certificate cannot be trusted: {error.verify_message}",
                mend="verify_tls = false takes any certificate",
            ) from error
        except socket.gaierror as error:
            raise PowerError(f"{where}: there is no such host: {error.strerror}") from error
        except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError) as error:
            raise PowerError(f"{where} ended the connection without an answer") from error
        except OSError as error:
            raise PowerError(f"{where}: {error.strerror or error}") from error
        except (http.client.HTTPException, ValueError) as error:
            said = f"{type(error).__name__}: {self.clean(str(error))[:_SHOWN]}"
            # The error itself may hold what was sent.
            raise PowerError(f"{where} does not speak HTTP: {said}") from None
        finally:
            connection.close()
            if line is not None:
                line.end()

    def _connection(self, parts: SplitResult, timeout: float) -> http.client.HTTPConnection:
        import http.client
        import ssl

        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout)
        context = ssl.create_default_context()
        if not self._verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)

    def _redirected(self, url: str, answer: Answer) -> str:
        """Where to go on: only on the same device, and never from https to http."""
        try:
            found = urljoin(url, answer.location)
            old, new = urlsplit(url), urlsplit(found)
            same = (old.scheme, old.hostname, _port(old)) == (new.scheme, new.hostname, _port(new))
            # A device that moved to TLS.
            safer = (old.scheme, new.scheme) == ("http", "https") and old.hostname == new.hostname
        except ValueError:
            raise PowerError(f"{answer.where} sends to an address that is none") from None
        if not same and not safer:
            raise InfrastructureError(
                f"{answer.where} sends to {self.clean(_place(found))}, another place",
                mend="write that address, if it is right",
            )
        return found


class _InTime:
    """A connected socket for http.client, of which all that is done ends at a given time."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self._socket = sock
        self._until = until

    def sendall(self, data: Any) -> None:
        self._limit()
        self._socket.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self))

    def recv_into(self, buffer: Any) -> int:
        self._limit()
        return self._socket.recv_into(buffer)

    def close(self) -> None:
        """http.client closes its socket while it still reads from it."""

    def end(self) -> None:
        self._socket.close()

    def _limit(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("out of time")
        self._socket.settimeout(left)


class _Reader(io.RawIOBase):
    def __init__(self, line: _InTime) -> None:
        self._line = line

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._line.recv_into(buffer)


def _received(response: http.client.HTTPResponse, where: str) -> Answer:
    body = response.read(LARGEST + 1)
    if len(body) > LARGEST:
        raise PowerError(
            f"{where} answered with more than {LARGEST // 1024} KiB",
            mend="is it this kind of device, and the path right?",
        )
    # http.client says nothing of a short body when it was asked for a number of bytes.
    if response.length:
        raise PowerError(f"{where} ended in the middle of its answer, after {len(body)} bytes")
    return Answer(
        where=where,
        status=response.status,
        challenges=tuple(response.headers.get_all("WWW-Authenticate", [])),
        location=response.headers.get("Location", ""),
        body=body,
    )


def _target(parts: SplitResult) -> str:
    """Path and query, as they go over the line."""
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~?[]")
    return f"{path}?{query}" if query else path


def _port(parts: SplitResult) -> int:
    return parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)


def _place(url: str) -> str:
    """A URL for errors: without what may be secret in it."""
    parts = urlsplit(url)
    netloc = parts.netloc.rpartition("@")[2]
    return visible(f"{parts.scheme}://{netloc}{parts.path}")
