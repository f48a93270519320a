"""Names of runs and of tests, as directories."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import Final

LONGEST: Final = 150
_SUFFIX_DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

# What pytest puts into every node id. Directories that differ only in these are told apart by
# a number (see TestDir); all other changes by a hash.
_USUAL: Final = (("::", "--"), ("/", "-"), ("[", "-"), ("]", ""))
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._=+,@-]+")


def run_id(now: datetime) -> str:
    """``2026-11-20T22-45-01-abc``: sorts by time; ``abc`` counts a second's 46656th parts."""
    part = now.microsecond * 36**3 // 1_000_000
    suffix = ""
    for _ in range(3):
        part, digit = divmod(part, 36)
        suffix = _SUFFIX_DIGITS[digit] + suffix
    return f"{now:%Y-%m-%dT%H-%M-%S}-{suffix}"


def directory_name(nodeid: str, target: str) -> str:
    """A directory name of at most LONGEST bytes: ``tests-test_usb.py--test_plug-hid@qemu``.

    It ends with a short hash of the node id when that cannot be seen from it any more.
    """
    wanted = nodeid
    for part, replacement in _USUAL:
        wanted = wanted.replace(part, replacement)
    wanted = f"{wanted}@{target}" if target else wanted
    name = _UNSAFE.sub("_", wanted).lstrip(".-") or "test"
    if name == wanted and len(name) <= LONGEST:
        return name
    mark = "~" + hashlib.sha256(f"{nodeid}@{target}".encode(errors="surrogatepass")).hexdigest()[:8]
    return name[: LONGEST - len(mark)] + mark
