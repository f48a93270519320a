"""What happens to USB devices, as events, and as lines for scripts.

A line is ``hil-usb: WHAT key=value key=value …``. Keys are lower-case words. In a value, whatever
is not printable ASCII, and spaces, ``%``, ``,`` are written as ``%XX`` of their UTF-8 bytes; a
comma stands between the elements of a list. Each value comes once, in no promised order, and there
may be more than is listed here::

    hil-usb: attach busid=1-1 guest=1-2 port=1 vendor=0x1209 product=0x0003 nodes=/dev/ttyACM0

======================  ============================================================================
``plug``, ``unplug``    a device is offered, or no more: ``busid``
``list``                an importer asked what there is: ``peer``, ``devices`` (how many)
``import``              an importer took a device: ``busid``, ``peer``
``refused``             it did not get one: ``peer``, ``busid``, ``status``
``enumerate``           the target's kernel has read it: ``busid``, ``guest``, ``port``, ``ms``
``attach``              it is ready: the same, ``vendor``, ``product``, ``nodes``, ``drivers``
``attach-failed``       it never was: ``busid``, ``error``
``urb-error``           a transfer ended with an error: ``busid``, ``endpoint``, ``status``
``device-error``        a device's handler raised: ``busid``, ``error``
``malformed``           an importer spoke nonsense: ``peer``, ``error``
``released``            its importer is gone: ``busid``, ``peer``
``detach``              the target has let go of it: ``busid``, ``port``
``lost``                the target has it no more: ``busid``, ``why``
======================  ============================================================================

``ms`` is counted from when the device was offered. ``remote`` stands beside ``busid`` where the
device is another exporter's (``attach_remote()``): its address.
"""

from __future__ import annotations

import queue
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_to_bytes

from pytest_hil.errors import TargetError

PREFIX = "hil-usb:"

# A line's longest value: the rest of a traceback, say, is not for scripts.
LONGEST = 1000

_WORD = re.compile(r"[a-z][a-z0-9_-]*")
_PLAIN = frozenset(range(0x21, 0x7F)) - {ord("%"), ord(",")}


class NotSeen(TargetError):
    """An event that was waited for did not come; says what did."""


@dataclass(frozen=True, slots=True)
class UsbEvent:
    """``what`` happened, and its facts as text. Lists have their elements joined as in a line."""

    what: str
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __getitem__(self, key: str) -> str:
        """A fact that is one value; "" if there is no such fact."""
        return ",".join(self.facts.get(key, ()))

    @property
    def busid(self) -> str:
        return self["busid"]

    @property
    def nodes(self) -> tuple[str, ...]:
        return self.facts.get("nodes", ())

    @property
    def vendor_id(self) -> int | None:
        return _number(self["vendor"])

    @property
    def product_id(self) -> int | None:
        return _number(self["product"])

    @classmethod
    def of(cls, what: str, **facts: object) -> UsbEvent:
        """From plain values; a tuple or a list is a list, None and "" are left out."""
        found: dict[str, tuple[str, ...]] = {}
        for key, value in facts.items():
            many = value if isinstance(value, tuple | list) else [value]
            texts = tuple(str(one)[:LONGEST] for one in many if one is not None and one != "")
            if texts:
                found[key] = texts
        return cls(what, found)

    def __str__(self) -> str:
        return format_line(self)


def _number(text: str) -> int | None:
    try:
        return int(text, 0)
    except ValueError:
        return None


def _escape(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    return "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in data)


def _unescape(text: str) -> str:
    return unquote_to_bytes(text).decode("utf-8", "surrogatepass")


def format_line(event: UsbEvent) -> str:
    """The line of an event, without an end of line. Raises ValueError for a name that is none."""
    for name in (event.what, *event.facts):
        if not _WORD.fullmatch(name):
            raise ValueError(f"{name!r} is no name in a line: write lower-case letters, - and _")
    facts = [(key, many) for key, many in event.facts.items() if many]
    words = [f"{key}={','.join(map(_escape, many))}" for key, many in facts]
    return " ".join([PREFIX, event.what, *words])


def parse_line(line: str) -> UsbEvent:
    """The event of a line; whatever stands before ``hil-usb:`` (a time, say) is left out.

    Raises ValueError that says what is wrong.
    """
    _before, prefix, rest = line.partition(PREFIX)
    if not prefix:
        raise ValueError(f"{line!r} has no {PREFIX!r}")
    words = rest.split()
    if not words or not _WORD.fullmatch(words[0]):
        raise ValueError(f"{line!r} does not say what happened")
    facts: dict[str, tuple[str, ...]] = {}
    for word in words[1:]:
        key, equals, value = word.partition("=")
        if not equals or not _WORD.fullmatch(key) or key in facts:
            raise ValueError(f"{line!r}: {word!r} is not one key=value")
        try:
            facts[key] = tuple(map(_unescape, value.split(",")))
        except UnicodeDecodeError:
            raise ValueError(f"{line!r}: the value of {key} is no UTF-8") from None
    return UsbEvent(words[0], facts)


def parse_lines(lines: Iterable[str]) -> Iterator[UsbEvent]:
    """The events among lines of all kinds, a console's say; who has none of ours is left out."""
    for line in lines:
        if PREFIX in line:
            try:
                yield parse_line(line)
            except ValueError:
                continue  # somebody else's, or cut


def wait_for_usb_ready(lines: Iterable[str], *, busid: str = "", timeout: float = 30.0) -> UsbEvent:
    """The ``attach`` event of a device, as soon as the stream has it. Reads on until then.

    ``lines`` may be anything that gives lines: a file, a pipe, a list. "" is any device.
    Raises NotSeen when the stream ends, says that it failed, or after ``timeout`` seconds; a stream
    that is silent then may keep one thread waiting until it ends.
    """
    found: queue.SimpleQueue[UsbEvent | None] = queue.SimpleQueue()
    over = threading.Event()

    def read() -> None:
        try:
            for event in parse_lines(lines):
                found.put(event)
                if over.is_set() or _ends(event, busid):
                    return
        finally:
            found.put(None)

    threading.Thread(target=read, name="hil-usb-lines", daemon=True).start()
    deadline = time.monotonic() + timeout
    seen: list[UsbEvent] = []
    wanted = f"{busid or 'a device'} to be ready"
    try:
        while True:
            try:
                event = found.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise NotSeen(_story(f"waited {timeout:g} s for {wanted}", seen)) from None
            if event is None:
                raise NotSeen(_story(f"waited for {wanted}, and the lines ended", seen))
            seen.append(event)
            if _ends(event, busid):
                if event.what == "attach":
                    return event
                raise NotSeen(_story(f"waited for {wanted}, and it failed", seen))
    finally:
        over.set()


def _ends(event: UsbEvent, busid: str) -> bool:
    return event.what in ("attach", "attach-failed") and busid in ("", event.busid)


def assert_attached(
    events: Iterable[UsbEvent | str],
    *,
    busid: str = "",
    vendor_id: int | None = None,
    product_id: int | None = None,
    node: str = "",
) -> UsbEvent:
    """The last ``attach`` of such a device that was not detached, unplugged or lost since.

    ``events`` may be lines as well. ``node`` is how one of its nodes begins ("/dev/ttyACM").
    Raises NotSeen, an AssertionError, which says what was seen instead.
    """
    seen = [one for each in events for one in _events(each)]
    there: dict[tuple[str, str], UsbEvent] = {}
    for event in seen:
        name = (event["remote"], event.busid)
        if event.what == "attach":
            there[name] = event
        elif event.what in ("detach", "lost", "released", "unplug"):
            there.pop(name, None)
    for event in reversed(there.values()):
        fits = (
            busid in ("", event.busid),
            vendor_id in (None, event.vendor_id),
            product_id in (None, event.product_id),
            not node or any(one.startswith(node) for one in event.nodes),
        )
        if all(fits):
            return event
    wishes = {
        "busid": busid,
        "vendor": "" if vendor_id is None else f"{vendor_id:#06x}",
        "product": "" if product_id is None else f"{product_id:#06x}",
        "node": node,
    }
    wanted = " ".join(f"{key}={value}" for key, value in wishes.items() if value)
    raise NotSeen(_story(f"no device is attached{f' with {wanted}' if wanted else ''}", seen))


def _events(each: UsbEvent | str) -> Iterable[UsbEvent]:
    return [each] if isinstance(each, UsbEvent) else parse_lines([each])


def _story(what: str, seen: list[UsbEvent]) -> str:
    if not seen:
        return f"{what}; there was no event at all"
    before = [f"  … {len(seen) - 20} events before"] if len(seen) > 20 else []
    return "\n".join([f"{what}; what was seen:", *before, *(f"  {one}" for one in seen[-20:])])
