"""One file over HTTP (or from a file URL), going on where an earlier try ended."""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pytest_hil.errors import ImageError
from pytest_hil.progress import Progress

_TRIES = 3
"""So many tries in a row without one new byte, then it is given up."""
_CHUNK = 1 << 18
_FOR_EVER = (400, 401, 403, 404, 405, 410, 451)
"""HTTP answers that another try does not change."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """``start``: the offset of its first byte; ``total``: the file's size (None: not said)."""

    stream: Any
    start: int
    total: int | None


class _Interrupted(Exception):
    """This try ended early; the next one goes on. Its text says why."""


def fetch(url: str, part: Path, *, progress: Progress, timeout: float) -> None:
    """Make ``part`` the whole of ``url``; what ``part`` already has is not fetched again.

    Raises ImageError when it cannot be had, OSError for troubles with ``part`` itself.
    Whether it is the right file only its sum says.
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            _once(url, part, before, progress, timeout)
            return
        except _Interrupted as why:
            failures = failures + 1 if _size(part) <= before else 0
            if failures >= _TRIES:
                raise ImageError(
                    f"{url} cannot be fetched: {why}",
                    mend="look at the network and run it again: what has arrived is kept",
                ) from why
            progress(f"{_label(url)}: {why}; trying again")


def _once(url: str, part: Path, have: int, progress: Progress, timeout: float) -> None:
    answer = _open(url, have, timeout)
    if answer is None:  # we have it all
        return
    with answer.stream, part.open("r+b" if part.exists() else "w+b") as out:
        out.truncate(answer.start)
        out.seek(answer.start)
        at = _copy(answer, out, _label(url), progress)
    if answer.total is not None and at < answer.total:
        raise _Interrupted(f"the connection ended after {at} of {answer.total} bytes")


def _copy(answer: _Answer, out: IO[bytes], label: str, progress: Progress) -> int:
    """Copy until the end; the offset that was reached."""
    at = answer.start
    shown = 0.0
    while True:
        try:
            chunk = answer.stream.read(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _Interrupted(_reason(error)) from error
        if not chunk:
            break
        out.write(chunk)
        at += len(chunk)
        if (now := time.monotonic()) - shown >= 0.5:
            shown = now
            total = f" of {answer.total / 1e6:.0f}" if answer.total else ""
            progress(f"fetching {label}: {at / 1e6:.0f}{total} MB")
    return at


def _open(url: str, have: int, timeout: float) -> _Answer | None:
    """Ask for what is missing; None when nothing is."""
    request = urllib.request.Request(url, headers={"User-Agent": "pytest-hil"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        stream = _opener().open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            return _refused(url, have, error, timeout)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, FileNotFoundError | PermissionError):
            raise ImageError(f"{url} cannot be read: {reason.strerror}") from error
        raise _Interrupted(_reason(error)) from error
    length = _number(stream.headers.get("Content-Length"))
    if stream.status == 206:
        start, total = _content_range(stream.headers.get("Content-Range"))
        if start == have:
            return _Answer(stream, have, total)
        stream.close()
        raise ImageError(f"{url}: the server was asked for byte {have} and sent byte {start}")
    return _Answer(stream, 0, length)


def _refused(url: str, have: int, error: urllib.error.HTTPError, timeout: float) -> _Answer | None:
    if error.code == 416 and have:
        _, total = _content_range(error.headers.get("Content-Range"))
        return None if total == have else _open(url, 0, timeout)
    if error.code in _FOR_EVER:
        raise ImageError(
            f"{url} cannot be fetched: {error.code} {error.reason}", mend="is the URL right?"
        ) from error
    raise _Interrupted(f"{error.code} {error.reason}") from error


def _opener() -> urllib.request.OpenerDirector:
    """http, https and file, with proxies and redirects, and nothing else."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.FileHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


def _content_range(value: str | None) -> tuple[int, int | None]:
    """(first byte, size of the whole) of ``bytes 100-199/200`` or ``bytes */200``."""
    match = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", value or "")
    if match is None:
        return -1, None
    return int(match[1] or -1), _number(match[2])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "the server said nothing for too long"
    return str(error) or type(error).__name__


def _label(url: str) -> str:
    return unquote(urlsplit(url).path).rpartition("/")[2] or url


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
