"""HTTP authentication, no I/O: what a server's 401 asks for, and what answers it.

Basic is RFC 7617. Digest is RFC 7616, with MD5, SHA-256 and SHA-512-256, for ``qop=auth`` and for
servers of RFC 2069 that know no qop.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

# The strongest first.
_ALGORITHMS = {"SHA-512-256": "sha512_256", "SHA-256": "sha256", "MD5": "md5"}
_SCHEMES = re.compile(r"(?:^|,)\s*(?=(?:basic|digest)(?:\s|$))", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way in which a server lets somebody prove who they are."""

    scheme: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def answer(
        self, *, user: str, password: str, method: str, target: str, cnonce: str | None = None
    ) -> str:
        """The value of ``Authorization``. ``target`` is the request's path with its query."""
        if self.scheme == "basic":
            return basic(user, password)
        return _digest(
            self.parameters,
            user=user,
            password=password,
            method=method,
            target=target,
            cnonce=cnonce or secrets.token_hex(16),
        )

    @property
    def stale(self) -> bool:
        """Only the nonce was too old: the password may be right."""
        return self.parameters.get("stale", "").lower() == "true"

    @property
    def strength(self) -> int:
        """How good it is; 0: not known here."""
        if self.scheme == "basic":
            return 1
        known = list(reversed(_ALGORITHMS))
        name = self._algorithm
        qop = _words(self.parameters.get("qop", ""))
        if name not in known or "nonce" not in self.parameters or (qop and "auth" not in qop):
            return 0
        return 2 + known.index(name)

    @property
    def _algorithm(self) -> str:
        return self.parameters.get("algorithm", "MD5").upper().removesuffix("-SESS")


def basic(user: str, password: str) -> str:
    """The value of ``Authorization`` for Basic."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def best(
    headers: Iterable[str], allowed: Collection[str] = ("basic", "digest")
) -> Challenge | None:
    """The strongest of what ``WWW-Authenticate`` headers offer; None: there is none of ours."""
    offered = [one for header in headers for one in _challenges(header) if one.scheme in allowed]
    return max((one for one in offered if one.strength), key=lambda one: one.strength, default=None)


def _challenges(header: str) -> Iterable[Challenge]:
    # Many switches ask for no password.
    from urllib.request import parse_http_list, parse_keqv_list

    for part in filter(None, (piece.strip(" ,") for piece in _SCHEMES.split(header))):
        scheme, _, rest = part.partition(" ")
        pairs = [pair for pair in parse_http_list(rest) if "=" in pair]
        parameters = {name.lower(): value for name, value in parse_keqv_list(pairs).items()}
        yield Challenge(scheme.lower(), parameters)


def _words(text: str) -> set[str]:
    return {word.strip().lower() for word in text.split(",")} - {""}


def _digest(
    parameters: Mapping[str, str],
    *,
    user: str,
    password: str,
    method: str,
    target: str,
    cnonce: str,
) -> str:
    algorithm = parameters.get("algorithm", "MD5")
    function = _ALGORITHMS[algorithm.upper().removesuffix("-SESS")]

    def hashed(*parts: str) -> str:
        return hashlib.new(function, ":".join(parts).encode(), usedforsecurity=False).hexdigest()

    realm, nonce = parameters.get("realm", ""), parameters["nonce"]
    first = hashed(user, realm, password)
    if algorithm.upper().endswith("-SESS"):
        first = hashed(first, nonce, cnonce)
    second = hashed(method, target)
    said = {"username": user, "realm": realm, "nonce": nonce, "uri": target}
    bare = {}
    if "algorithm" in parameters:
        bare["algorithm"] = algorithm
    if _words(parameters.get("qop", "")):
        # A nonce is used once, so its count is always 1.
        bare |= {"qop": "auth", "nc": "00000001"}
        said["cnonce"] = cnonce
        said["response"] = hashed(first, nonce, bare["nc"], cnonce, "auth", second)
    else:
        said["response"] = hashed(first, nonce, second)
    if "opaque" in parameters:
        said["opaque"] = parameters["opaque"]
    pairs = [f'{name}="{_escaped(value)}"' for name, value in said.items()]
    return "Digest " + ", ".join(pairs + [f"{name}={value}" for name, value in bare.items()])


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
