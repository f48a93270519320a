"""The corpus: logs, and what is to be found in them.

A file of ``corpus/`` holds many cases::

    #### what it is
    #= KIND SEVERITY FLAGS | TITLE      for each crash, in the order in which they end
    #: HOW OPTION…                      how its lines come
    the lines

FLAGS: P it ended in a panic, C corrupted, F a follow-up, - none. HOW: ``time`` (printk.time),
``caller`` (and PRINTK_CALLER; ``@T7 `` before a line says which), ``syslog``, ``none``, ``raw``
(what is before the lines is written out), ``mixed`` (time, but for lines that begin with ``|``).
OPTION: ``crlf``; ``watch``: resets are not asked for. ␛ stands for ESC. ``corpus/guest/`` has
whole logs of our own guest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pytest_hil.crash import Crash
from pytest_hil.crash.line import Message, messages

CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Case:
    """``expected``: kind, severity, flags, title of each crash."""

    name: str
    expected: tuple[tuple[str, str, str, str], ...]
    data: bytes
    watch: bool


def facts(crash: Crash) -> tuple[str, str, str, str]:
    """A crash as a case states it."""
    marks = (("P", crash.panic), ("C", crash.corrupted), ("F", crash.follow_up))
    flags = "".join(letter for letter, said in marks if said)
    return crash.kind, str(crash.severity), flags or "-", crash.title


def messages_of(line: bytes) -> list[Message]:
    """The messages of one line, at offset 0."""
    return list(messages(line, 0, None))


def _lines(how: str, lines: list[str]) -> Iterator[str]:
    """The lines as a console shows them."""
    for number, text in enumerate(lines):
        time = f"[{3 + number // 40:5d}.{100000 + number * 137:06d}]"
        if how == "caller":
            who, _, said = text.partition(" ") if text.startswith("@") else ("@T401", "", text)
            yield f"{time}[{who[1:]:>6}] {said}"
        elif how == "syslog":
            yield f"<4>Nov 21 10:00:{number % 60:02d} board kernel: {text}"
        elif how == "mixed" and text.startswith("|"):
            yield text[1:]
        elif how in ("time", "mixed"):
            yield f"{time} {text}"
        else:
            yield text


def _case(text: str) -> Case:
    name, *rest = text.splitlines()
    expected = []
    options = ["none"]
    lines = []
    for line in rest:
        if line.startswith("#= "):
            facts, _, title = line[3:].partition(" | ")
            kind, severity, flags = facts.split()
            expected.append((kind, severity, flags, title))
        elif line.startswith("#: "):
            options = line[3:].split()
        else:
            lines.append(line)
    end = "\r\n" if "crlf" in options else "\n"
    data = "".join(f"{line}{end}" for line in _lines(options[0], lines)).encode()
    return Case(name, tuple(expected), data.replace("␛".encode(), b"\x1b"), "watch" in options)


FILES = sorted(path.name for path in CORPUS.glob("*.log"))


def of(name: str) -> list[Case]:
    """The cases of one file."""
    first, *texts = ("\n" + (CORPUS / name).read_text(encoding="utf-8")).split("\n#### ")
    assert not first.strip(), f"{name} does not begin with a case"
    return [_case(text) for text in texts]


def made() -> list[Case]:
    """Those that were written down."""
    return [case for name in FILES for case in of(name)]


def guest() -> list[Case]:
    """Those that our own guest has said: ``guest/expected.txt`` has a block for each file."""
    found = []
    blocks = (CORPUS / "guest" / "expected.txt").read_text(encoding="utf-8").strip().split("\n\n")
    for block in blocks:
        case = _case(block)
        data = (CORPUS / "guest" / case.name).read_bytes()
        found.append(Case(f"guest/{case.name}", case.expected, data, case.watch))
    return found
