"""What a dying kernel left in pstore → the crashes that it died of.

A dump is the end of the kernel's log at that moment. One that is longer than a record is in several
of them, the end in the first (Linux: pstore_dump() in fs/pstore/platform.c).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator

from pytest_hil.crash.crash import Crash, Severity
from pytest_hil.crash.detector import Detector
from pytest_hil.crash.ruleset import Rules

# Backends on a disk put a line of their own before it.
_HEAD = re.compile(rb"(\w+)#(\d+) Part(\d+)\n")
_HEAD_WITHIN = 128
_TIME = re.compile(rb"(?:<\d+>)?\[ *(\d+\.\d+)\]")
_NUMBER = re.compile(r"(\d+)")
# Seconds for which a console is silent before its watcher takes a report for ended.
_SILENCE = 0.3
_REASONS = {"Panic": Severity.FATAL, "Oops": Severity.ERROR}


def crashes(records: Iterable[tuple[str, bytes]], rules: Rules) -> list[Crash]:
    """The crash of each dump in these records (name and content), the same one once.

    ``start`` and ``end`` of a crash are offsets in its dump.
    """
    found = [_crash(reason, log, rules) for reason, log in _dumps(records)]
    return list({crash.title: crash for crash in found if crash is not None}.values())


def _dumps(records: Iterable[tuple[str, bytes]]) -> list[tuple[str, bytes]]:
    """(reason, log) of each dump, its parts put together."""
    dumps: list[tuple[str, bytes]] = []
    last = ("", "", 0)
    for name, data in sorted(records, key=lambda record: _NUMBER.split(record[0])):
        text = _inflated(data) if name.endswith(".enc.z") else data
        head = _HEAD.search(text[:_HEAD_WITHIN])
        if head is None:
            this, log = ("", "", 1), text
        else:
            reason, number, part = (group.decode() for group in head.groups())
            this, log = (reason, number, int(part)), text[head.end() :]
        if dumps and last == (this[0], this[1], this[2] - 1):
            dumps[-1] = (this[0], log + dumps[-1][1])
        else:
            dumps.append((this[0], log))
        last = this
    return dumps


def _inflated(data: bytes) -> bytes:
    """A record that the kernel did not decompress, as it was built without that."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data)
    except zlib.error:
        return b""


def _crash(reason: str, log: bytes, rules: Rules) -> Crash | None:
    """The last one in a dump: what came before it was no reason to write the dump."""
    found = list(_read(log, Detector(rules)))
    if found:
        return found[-1]
    if reason not in _REASONS:
        return None  # pstore can be told to keep the log of a clean shutdown, too
    title = f"{reason.lower()}: pstore has the kernel's log, and there is no report in it"
    text = log[-4096:].decode(errors="replace")
    return Crash("pstore", _REASONS[reason], title, text, max(0, len(log) - 4096), len(log))


def _read(log: bytes, detector: Detector) -> Iterator[Crash]:
    """All of a log's, as they would have been found on a console at that time."""
    before = 0.0
    for line in log.splitlines(keepends=True):
        if stamp := _TIME.match(line):
            now = float(stamp[1])
            if now > before + _SILENCE:
                # Twice: one that is not whole has ended, too.
                yield from (*detector.idle(), *detector.idle())
            before = now
        yield from detector.feed(line)
    yield from detector.finish()
