r"""A console's line → messages: without what printk, syslog, a tty and a terminal put around them.

What the kernel says is put before it: ``[   12.345678]`` by printk.time, ``[  T123]`` or
``[    C0]`` by PRINTK_CALLER (who said it: a task or a processor), ``<3>`` where levels are
shown. A console line can hold more than one message: a prompt without a newline and what the
kernel said after it, or two messages that were torn. A time in the middle begins the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pytest_hil.crash.pattern import Pattern

# Longer lines are cut: the kernel's are at most about 1 KiB, and a stream may have no newline.
LONGEST = 4096

# What stands before a message and is none of it. As text for a pattern of str and of bytes.
COLOURS = r"\x1b\[[0-9;]*[A-Za-z]"
LEVEL = r"<\d{1,3}>"
SYSLOG = (
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\d[T ][\d:.,+Z-]+) \S{1,255} kernel: "
)
_TIME = r"\[ {0,11}\d{1,12}\.\d{6}\]"
_CALLER = r"(?: ?\[ {0,8}([CT]\d{1,10})\])?"

# Zephyr's time: hours, minutes, seconds, milli- and microseconds.
_ZEPHYR = r"\[\d\d:\d\d:\d\d\.\d{3},\d{3}\] "

_PREFIX = Pattern(
    rf"{_ZEPHYR}|(?P<level>{LEVEL})?(?P<syslog>{SYSLOG})?(?:{LEVEL})?(?:({_TIME}){_CALLER} ?)?"
)
_ESCAPES = Pattern(rf"{COLOURS}|\x1b[()][A-Z0-9]|\x1b[=>78cDEHM]|[\x00\x07\x0e\x0f]")
_LATER = Pattern(rf"(?<=.)(?=(?:{LEVEL})?{_TIME}(?: ?\[ {{0,8}}[CT]\d{{1,10}}\])? )")


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``stamp`` and ``caller`` are "" where the line has none; ``start`` and ``end``
    are offsets in the stream, of the whole line if it was not torn.

    ``torn``: the kernel's message before it in the same line had no end.
    """

    text: str
    line: str
    stamp: str
    caller: str
    kernel: bool
    torn: bool
    start: int
    end: int
    at: float | None


def messages(data: bytes, start: int, at: float | None) -> Iterator[Message]:
    """The messages of a line. ``start``: its offset in the stream; ``data`` may end with CR LF."""
    end = start + len(data)
    raw = data.decode("utf-8", "replace").rstrip("\r\n")
    line = _ESCAPES.sub("", raw)
    if "\r" in line:
        # What a progress bar has written over is not there any more for who reads.
        line = line[line.rfind("\r") + 1 :]
    torn = False
    for piece in _LATER.split(line) if "." in line else (line,):
        found = _PREFIX.match(piece)
        assert found is not None  # it can be empty
        stamp = found[3] or ""
        yield Message(
            text=piece[found.end() :].rstrip(),
            line=piece,
            stamp=stamp,
            caller=found[4] or "",
            kernel=bool(stamp or found["level"] or found["syslog"]),
            torn=torn,
            start=start,
            end=end,
            at=at,
        )
        torn = bool(stamp)
