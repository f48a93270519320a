"""Fetching from a real server on the loopback, which can misbehave."""

from __future__ import annotations

import hashlib
import re
import resource
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pytest_hil.cache import Cache
from pytest_hil.config import Download
from pytest_hil.errors import ChecksumMismatch, ImageError, NoRoom
from pytest_hil.qemu.image import download

CONTENT = bytes(range(256)) * 4000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
SHA512 = hashlib.sha512(CONTENT).hexdigest()

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    """Answers with the next of the server's ``answers``, the last of them for ever."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers.get("Range")))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        self.close_connection = True
        answer(self)

    def log_message(self, format: str, *args: object) -> None:
        pass

    @property
    def start(self) -> int:
        """The byte that was asked for."""
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        return int(match[1]) if match else 0

    def head(self, code: int, **headers: object) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()


class Server(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [whole]
        self.requests: list[tuple[str, str | None]] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/images/disk%20one.qcow2"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked in self.requests]


def whole(handler: Handler) -> None:
    """As a good server does, ranges and all."""
    if handler.start >= len(CONTENT):
        handler.head(416, Content_Range=f"bytes */{len(CONTENT)}", Content_Length=0)
    elif handler.start:
        part = CONTENT[handler.start :]
        span = f"bytes {handler.start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        handler.head(206, Content_Range=span, Content_Length=len(part))
        handler.wfile.write(part)
    else:
        handler.head(200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT)


def without_ranges(handler: Handler) -> None:
    handler.head(200, Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT)


def drop_after(count: int) -> Answer:
    """Send so many bytes and cut the connection."""

    def answer(handler: Handler) -> None:
        part = CONTENT[handler.start :]
        if handler.start:
            span = f"bytes {handler.start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            handler.head(206, Content_Range=span, Content_Length=len(part))
        else:
            handler.head(200, Content_Length=len(part))
        handler.wfile.write(part[:count])

    return answer


def status(code: int) -> Answer:
    return lambda handler: handler.head(code, Content_Length=0)


def hang(handler: Handler) -> None:
    handler.head(200, Content_Length=len(CONTENT))
    handler.wfile.write(CONTENT[:10])
    handler.wfile.flush()
    assert isinstance(handler.server, Server)
    handler.server.released.wait(20)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def fetch(
    server: Server, cache: Cache, *, sha256: str = SHA256, sha512: str = "", timeout: float = 10
) -> Path:
    what = Download(server.url, sha256, sha512)
    return download.fetch(what, cache=cache, progress=lambda _line: None, timeout=timeout)


def files(cache: Cache) -> list[str]:
    """All files in the cache but locks and notes of use."""
    found = (path.name for path in cache.root.rglob("*") if path.is_file())
    return sorted(name for name in found if not name.startswith("."))


def test_it_is_fetched_once_and_cannot_be_written(server: Server, cache: Cache) -> None:
    path = fetch(server, cache, sha512=SHA512.upper())

    assert path.name == "disk one.qcow2"
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o222 == 0
    assert fetch(server, cache) == path
    assert len(server.requests) == 1
    assert download.damage(path.parent) == []


def test_a_dropped_connection_is_gone_on_with(server: Server, cache: Cache) -> None:
    server.answers = [drop_after(300_000), drop_after(300_000), whole]

    assert fetch(server, cache).read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=300000-", "bytes=600000-"]


def test_an_interrupted_fetch_is_gone_on_with_by_the_next(server: Server, cache: Cache) -> None:
    server.answers = [drop_after(500_000), status(503)]
    with pytest.raises(ImageError, match="503 Service Unavailable") as raised:
        fetch(server, cache)
    assert "what has arrived is kept" in str(raised.value)
    server.answers = [whole]
    server.requests.clear()

    assert fetch(server, cache).read_bytes() == CONTENT
    assert server.ranges == ["bytes=500000-"]


def test_a_server_without_ranges_starts_again(server: Server, cache: Cache) -> None:
    server.answers = [drop_after(500_000), without_ranges]

    assert fetch(server, cache).read_bytes() == CONTENT


def test_a_whole_part_is_only_checked(server: Server, cache: Cache) -> None:
    with pytest.raises(ChecksumMismatch):
        fetch(server, cache, sha512="0" * 128)
    server.answers = [drop_after(len(CONTENT) - 1), status(500)]
    with pytest.raises(ImageError):
        fetch(server, cache)
    [part] = (cache.root / "partial").iterdir()
    with part.open("ab") as stream:
        stream.write(CONTENT[-1:])
    server.answers = [whole]
    server.requests.clear()

    assert fetch(server, cache).read_bytes() == CONTENT
    assert server.ranges == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("part", [b"x" * 1000, b"x" * (len(CONTENT) + 5)], ids=["short", "long"])
def test_a_wrong_part_is_thrown_away(server: Server, cache: Cache, part: bytes) -> None:
    server.answers = [drop_after(10), status(500)]
    with pytest.raises(ImageError):
        fetch(server, cache)
    [path] = (cache.root / "partial").iterdir()
    path.write_bytes(part)
    server.answers = [whole]

    assert fetch(server, cache).read_bytes() == CONTENT
    assert list((cache.root / "partial").iterdir()) == []


@pytest.mark.parametrize(
    "sums", [{"sha256": "0" * 64}, {"sha512": "0" * 128}], ids=["sha256", "sha512"]
)
def test_a_wrong_sum_leaves_nothing_behind(
    server: Server, cache: Cache, sums: dict[str, str]
) -> None:
    [(algorithm, wanted)] = sums.items()

    with pytest.raises(ChecksumMismatch, match=f"its {algorithm} is .*, wanted {wanted}"):
        fetch(server, cache, sha256=sums.get("sha256", SHA256), sha512=sums.get("sha512", ""))

    assert files(cache) == []


def test_a_wrong_sha512_is_found_in_the_cache_too(server: Server, cache: Cache) -> None:
    fetch(server, cache)

    with pytest.raises(ChecksumMismatch, match="sha512"):
        fetch(server, cache, sha512="0" * 128)
    assert files(cache) == []


def test_a_server_that_says_nothing_is_given_up(server: Server, cache: Cache) -> None:
    server.answers = [hang]

    with pytest.raises(ImageError, match="the server said nothing for too long"):
        fetch(server, cache, timeout=0.1)


def test_nobody_there(cache: Cache) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/x"
        with pytest.raises(ImageError, match=r"cannot be fetched: .*refused"):
            download.fetch(Download(url, SHA256), cache=cache, progress=lambda _line: None)


@pytest.mark.parametrize("code", [403, 404, 410])
def test_what_will_not_change_is_asked_once(server: Server, cache: Cache, code: int) -> None:
    server.answers = [status(code)]

    with pytest.raises(ImageError, match=f"{code} .*\n  is the URL right") as raised:
        fetch(server, cache)
    assert server.url in str(raised.value)
    assert len(server.requests) == 1


def test_a_redirect_is_followed(server: Server, cache: Cache) -> None:
    server.answers = [lambda handler: handler.head(302, Location="/other", Content_Length=0), whole]

    assert fetch(server, cache).read_bytes() == CONTENT
    assert [path for path, _ in server.requests][1] == "/other"


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://127.0.0.1/x"])
def test_a_redirect_to_elsewhere_is_not(server: Server, cache: Cache, place: str) -> None:
    server.answers = [lambda handler: handler.head(302, Location=place, Content_Length=0)]

    with pytest.raises(ImageError, match="cannot be fetched"):
        fetch(server, cache)


def test_without_a_length_the_sum_decides(server: Server, cache: Cache) -> None:
    def endless(handler: Handler) -> None:
        handler.head(200, Connection="close")
        handler.wfile.write(CONTENT)

    server.answers = [endless]

    assert fetch(server, cache).read_bytes() == CONTENT


def test_more_than_the_length_is_not_taken(server: Server, cache: Cache) -> None:
    def too_much(handler: Handler) -> None:
        handler.head(200, Content_Length=len(CONTENT))
        handler.wfile.write(CONTENT + b"more")

    server.answers = [too_much]

    assert fetch(server, cache).read_bytes() == CONTENT


def test_bytes_from_elsewhere_are_refused(server: Server, cache: Cache) -> None:
    def wrong_range(handler: Handler) -> None:
        handler.head(206, Content_Range=f"bytes 5-9/{len(CONTENT)}", Content_Length=5)

    server.answers = [drop_after(100), wrong_range]

    with pytest.raises(ImageError, match="asked for byte 100 and sent byte 5"):
        fetch(server, cache)


def test_a_full_disk_keeps_nothing(server: Server, cache: Cache) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limits[1]))
    try:
        with pytest.raises(NoRoom, match=r"no room in the cache .*: File too large"):
            fetch(server, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert files(cache) == []


def test_a_file_url(tmp_path: Path, cache: Cache) -> None:
    path = tmp_path / "local"
    path.write_bytes(CONTENT)

    found = download.fetch(
        Download(path.as_uri(), SHA256), cache=cache, progress=lambda _line: None
    )

    assert found.read_bytes() == CONTENT
    with pytest.raises(ImageError, match="cannot be"):
        download.fetch(
            Download((tmp_path / "gone").as_uri(), "1" * 64),
            cache=cache,
            progress=lambda _line: None,
        )


@pytest.mark.parametrize("url", ["ftp://host/x", "data:,x", "/etc/passwd"])
def test_other_schemes_are_refused(cache: Cache, url: str) -> None:
    with pytest.raises(ImageError, match="only http, https and file"):
        download.fetch(Download(url, SHA256), cache=cache, progress=lambda _line: None)


def test_progress_says_how_much(server: Server, cache: Cache) -> None:
    lines: list[str] = []
    download.fetch(Download(server.url, SHA256), cache=cache, progress=lines.append)

    assert lines[0] == "fetching disk one.qcow2: 0 of 1 MB"
    assert lines[-1] == "checking disk one.qcow2"


def test_damage_in_the_cache_is_found_and_mended(server: Server, cache: Cache) -> None:
    path = fetch(server, cache)
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert "has sha256" in download.damage(path.parent)[0]

    path.write_bytes(b"")
    assert download.damage(path.parent) == ["its manifest or its file is missing or cut short"]
    assert fetch(server, cache).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://h/a/b.img?x=1", "b.img"),
        ("http://h/", "file"),
        ("http://h/a/..", "file"),
        ("http://h/manifest.json", "file"),
        ("http://h/a%2F..%2Fb", "b"),
        ("http://h/a%00b", "file"),
    ],
)
def test_the_files_name_cannot_lead_anywhere(url: str, name: str) -> None:
    assert download._name(url) == name
