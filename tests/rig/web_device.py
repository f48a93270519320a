"""A device with a web server, as network power switches have one: real sockets on loopback."""

from __future__ import annotations

import base64
import hashlib
import http.server
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qsl, urlsplit
from urllib.request import parse_http_list, parse_keqv_list


@dataclass(frozen=True)
class Request:
    """What came. Names of headers are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, strict_parsing=False))

    def knows(self, user: str, password: str) -> bool:
        """By HTTP Basic."""
        proof = base64.b64encode(f"{user}:{password}".encode()).decode()
        return self.headers.get("authorization") == f"Basic {proof}"

    def proves(self, user: str, password: str, *, realm: str, nonce: str, hashed: str) -> bool:
        """By HTTP Digest, as RFC 7616 has it for qop=auth."""
        scheme, _, rest = self.headers.get("authorization", "").partition(" ")
        if scheme != "Digest":
            return False
        said = parse_keqv_list(parse_http_list(rest))

        def digest(text: str) -> str:
            return hashlib.new(hashed, text.encode()).hexdigest()

        first = digest(f"{user}:{realm}:{password}")
        second = digest(f"{self.method}:{self.target}")
        middle = f"{nonce}:{said['nc']}:{said['cnonce']}:auth"
        return (
            said["username"] == user
            and said["uri"] == self.target
            and said["nonce"] == nonce
            and said["qop"] == "auth"
            and said["response"] == digest(f"{first}:{middle}:{second}")
        )


@dataclass(frozen=True)
class Reply:
    """A whole answer."""

    body: str | bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


# Bytes are written as they are, and the connection ends; None: silence; a list of bytes: one piece
# each tenth of a second.
Answer = Reply | bytes | list[bytes] | None


class WebDevice:
    """Answers as ``answer`` says, and remembers what it was asked."""

    def __init__(
        self, answer: Callable[[Request], Answer], *, certificate: Path | None = None
    ) -> None:
        self.asked: list[Request] = []
        self._over = threading.Event()
        device = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def _any(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                names = {name.lower(): value for name, value in self.headers.items()}
                request = Request(self.command, self.path, names, self.rfile.read(size))
                device.asked.append(request)
                self.close_connection = True
                device._give(answer(request), self)

            do_GET = do_POST = do_PUT = do_PATCH = _any

            def log_message(self, format: str, *args: object) -> None:
                """Quiet."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        scheme = "http" if certificate is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def _give(self, answer: Answer, handler: http.server.BaseHTTPRequestHandler) -> None:
        if answer is None:
            self._over.wait(30)
        elif isinstance(answer, Reply):
            body = answer.body.encode() if isinstance(answer.body, str) else answer.body
            handler.send_response(answer.status)
            for name, value in {"Content-Length": str(len(body)), **answer.headers}.items():
                handler.send_header(name, value)
            handler.end_headers()
            handler.wfile.write(body)
        else:
            for piece in [answer] if isinstance(answer, bytes) else answer:
                try:
                    handler.wfile.write(piece)
                except OSError:
                    return  # the client has had enough
                if isinstance(answer, list) and self._over.wait(0.1):
                    return

    def __enter__(self) -> WebDevice:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """From then on its port refuses."""
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
