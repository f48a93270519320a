"""One table of boards.toml: which keys it may have, and what they become."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from pytest_hil.config import values
from pytest_hil.config.described import described, description
from pytest_hil.config.model import Download, GuestFile
from pytest_hil.config.values import BadValue, shown, wrong_kind
from pytest_hil.errors import ConfigError, nearest

Check = Callable[[object, Path], Any]
"""Takes a value and the directory that relative paths are meant from."""


class Problems:
    """Everything that is wrong with one file (or one marker), to be said at once."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._found: list[tuple[str, str, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, where: str, message: str, mend: str = "") -> None:
        self._found.append((where, message, mend))

    def include(self, error: ConfigError) -> None:
        """What was raised of a place in the same file."""
        where = error.where.removeprefix(f"{self._source}: ")
        self.add(where, error.message.removeprefix(f"{error.where}: "), error.mend)

    def raise_if_any(self) -> None:
        """One error is said as itself, several as a list."""
        if not self._found:
            return
        if len(self._found) == 1:
            where, message, mend = self._found[0]
            raise ConfigError(f"{self._source}: {where}", message, mend=mend)
        lines = [
            f"\n  {where}: {message}" + (f"\n    {mend}" if mend else "")
            for where, message, mend in self._found
        ]
        raise ConfigError(self._source, f"{len(lines)} errors" + "".join(lines))


def read_keys(
    raw: Mapping[str, object],
    checks: Mapping[str, Check],
    *,
    base: Path,
    prefix: str,
    problems: Problems,
) -> dict[str, Any]:
    """The checked values of the keys that are right; the others are added to ``problems``."""
    found = {}
    for key, value in raw.items():
        where = f"{prefix}{quoted(key)}"
        if key not in checks:
            problems.add(where, "unknown key", nearest(key, checks))
            continue
        try:
            found[key] = checks[key](value, base)
        except BadValue as bad:
            problems.add(where + bad.at, bad.message, bad.mend)
    return found


def quoted(key: str) -> str:
    """A key as TOML writes it: bare where it can be, else quoted."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else shown(key)


def plain(check: Callable[[object], Any]) -> Check:
    """A check that needs no directory."""

    def of_value(value: object, _base: Path) -> Any:
        return check(value)

    said = description(check)
    return of_value if said is None else described(**said)(of_value)


@described(
    anyOf=[
        {"type": "object", "additionalProperties": {"type": "string"}},
        {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "source": {"type": "string"},
                    "path": {"type": "string", "pattern": "^/"},
                    "mode": {"type": "string", "pattern": "^[0-7]{3,4}$"},
                },
                "required": ["source", "path"],
                "additionalProperties": False,
            },
        },
    ]
)
def guest_files(value: object, base: Path) -> tuple[GuestFile, ...]:
    """``[{source=…, path=…, mode="0755"}]``, or ``{"/path/in/guest" = "local/file"}``."""
    if isinstance(value, dict):
        found = tuple(_from_pairs(value, base))
    else:
        found = values.array(
            value,
            lambda item: _guest_file(item, base),
            'an array of {source=…, path=…, mode="0755"}, or a table of "/path/in/guest" = "file"',
        )
    paths = [file.path for file in found]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice:
        raise BadValue(f"{shown(twice)} is there twice", "remove one")
    return found


@described(
    type="object",
    properties={
        "url": {"type": "string"},
        "sha256": {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"},
        "sha512": {"type": "string", "pattern": "^[0-9a-fA-F]{128}$"},
    },
    required=["url", "sha256"],
    additionalProperties=False,
)
def download(value: object, _base: Path) -> Download:
    """``{url=…, sha256=…, sha512=…}``; the sha256 is required."""
    found = _subtable(
        value, {"url": _url, "sha256": _sha(64), "sha512": _sha(128)}, "{url, sha256}"
    )
    for key, mend in (("url", ""), ("sha256", "`sha256sum FILE` prints it")):
        if key not in found:
            raise BadValue("missing", mend, at=f".{key}")
    return Download(**found)


def _from_pairs(table: Mapping[str, object], base: Path) -> Iterator[GuestFile]:
    for guest, local in table.items():
        try:
            yield GuestFile(source=values.path(local, base), path=_guest_path(guest))
        except BadValue as bad:
            bad.at = f".{quoted(guest)}{bad.at}"
            raise


def _guest_file(value: object, base: Path) -> GuestFile:
    checks = {"source": lambda v: values.path(v, base), "path": _guest_path, "mode": _mode}
    found = _subtable(value, checks, "{source, path}")
    for key in ("source", "path"):
        if key not in found:
            raise BadValue("missing", at=f".{key}")
    return GuestFile(**found)


def _subtable(
    value: object, checks: Mapping[str, Callable[[object], Any]], wanted: str
) -> dict[str, Any]:
    """An inline table's values; its first error is raised, with the place in ``at``."""
    if not isinstance(value, dict):
        raise wrong_kind(value, f"a table {wanted}")
    found = {}
    for key, item in value.items():
        if key not in checks:
            raise BadValue("unknown key", nearest(str(key), checks), at=f".{quoted(str(key))}")
        try:
            found[key] = checks[key](item)
        except BadValue as bad:
            bad.at = f".{key}{bad.at}"
            raise
    return found


def _guest_path(value: object) -> str:
    path = values.text(value)
    parts = PurePosixPath(path).parts
    if not path.startswith("/") or ".." in parts or len(parts) < 2:
        raise BadValue(f"{shown(value)} is no file's absolute path in the guest")
    # PurePosixPath keeps two leading slashes, as POSIX allows; a guest's path needs one.
    return "/" + "/".join(parts[1:])


def _mode(value: object) -> int:
    if not isinstance(value, str) or not re.fullmatch(r"[0-7]{3,4}", value, re.ASCII):
        raise BadValue(f"{shown(value)} is no file mode", 'write the octal digits: "0755"')
    return int(value, 8)


def _url(value: object) -> str:
    url = values.text(value)
    try:
        parts = urlsplit(url)
        web = parts.scheme in ("http", "https") and bool(parts.hostname)
        right = (web or (parts.scheme == "file" and bool(parts.path))) and " " not in url
    except ValueError:
        right = False
    if not right:
        raise BadValue(f"{shown(value)} is no http:// or https:// address, and no file:///path")
    return url


def _sha(digits: int) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(rf"[0-9a-fA-F]{{{digits}}}", value):
            raise BadValue(f"{shown(value)} is no checksum", f"wanted: {digits} hexadecimal digits")
        return value.lower()

    return check


TARGET_KEYS: Mapping[str, Check] = {
    "arch": plain(values.arch),
    "machine": plain(values.text),
    "cpu": plain(values.text),
    "smp": plain(values.cpus),
    "memory": plain(values.size),
    "image": plain(values.text),
    "kernel": values.path,
    "kernel_modules": values.path,
    "initrd": values.path,
    "disk": values.path,
    "append": plain(values.text),
    "agent": plain(values.boolean),
    "ready": plain(values.regex),
    "network": plain(values.network),
    "forwards": plain(values.forwards),
    "features": plain(values.features),
    "extra_args": plain(values.texts),
}

DEBIAN_KEYS: Mapping[str, Check] = {
    "arch": plain(values.arch),
    "packages": plain(values.packages),
    "modules": plain(values.modules),
    "files": guest_files,
    "startup": plain(values.scripts),
    "kernel": values.path,
    "kernel_modules": values.path,
    "append": plain(values.text),
}

FILES_KEYS: Mapping[str, Check] = {
    "kernel": values.path,
    "initrd": values.path,
    "disk": values.path,
    "append": plain(values.text),
    "arch": plain(values.arch),
    "agent": plain(values.boolean),
}

URL_KEYS: Mapping[str, Check] = {
    **FILES_KEYS,
    "kernel": download,
    "initrd": download,
    "disk": download,
}
