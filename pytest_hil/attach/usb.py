"""USB devices in a target: what ``hil.usb`` is on machines and on boards.

The devices are exported over USB/IP; the target's own kernel attaches them, through a door that is
open for just that long (:mod:`~pytest_hil.attach.link`). Nothing of it is there before the first
device, and nothing of it may be in a saved state: the connections end with what the target runs on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from pytest_hil.attach import script
from pytest_hil.attach.attached import AttachedDevice, Source
from pytest_hil.attach.capture import Tap
from pytest_hil.attach.link import Door, Link
from pytest_hil.attach.script import Answer
from pytest_hil.attach.source import OwnSource, RemoteSource
from pytest_hil.errors import AttachFailed, HilError, NotThere, Unsupported
from pytest_hil.target import Attached, UsbDevice
from pytest_hil.usbip.events import UsbEvent, format_line
from pytest_hil.usbip.exporter import Exporter

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_hil.usbip.faults import UsbFault
    from pytest_hil.usbip.urb import Exportable

# Seconds for the target to see that a device is gone.
_GONE = 30.0


class Usb:
    """See :class:`pytest_hil.target.UsbPort`. Safe to use from several threads."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._lock = threading.RLock()
        self._turn = threading.Lock()
        self._exporter: Exporter | None = None
        self._door: Door | None = None
        self._offered: dict[str, Source] = {}
        self._attached: list[AttachedDevice] = []
        self._listeners: list[Callable[[str], object]] = []
        self._count = 0
        # Whether what a dead run left there is gone.
        self._swept = False
        # How often the target has lost everything.
        self._losses = 0
        self._closed = False
        self.tap = Tap()

    # --- the contract ---

    def attach(
        self,
        device: Exportable,
        *,
        faults: Sequence[UsbFault] = (),
        seed: int = 0,
        timeout: float = 30.0,
    ) -> AttachedDevice:
        offered = device
        if faults:
            from pytest_hil.usbip.faults import Faulty

            offered = Faulty(device, faults, seed=seed)
        with self._lock:
            exporter = self._open()
            self._count += 1
            busid = f"1-{self._count}"
        source = OwnSource(exporter, device, offered, busid, self.tap)
        return self._attach(source, timeout)

    def attach_remote(self, address: str, busid: str, *, timeout: float = 30.0) -> AttachedDevice:
        self._open()
        return self._attach(RemoteSource(address, busid, timeout, "attach_remote()"), timeout)

    def list(self) -> Sequence[UsbDevice]:
        answer = self._ask("its USB devices cannot be listed", ["list"], _GONE)
        # What came through a door of ours has another origin than that.
        origins = {(one.port, one.busid): one.source.text for one in self._attached}
        return [
            UsbDevice(
                port=one.port,
                guest_busid=one.guest_busid,
                vendor_id=one.vendor_id,
                product_id=one.product_id,
                remote=origins.get((one.port, one.busid), one.remote),
                busid=one.busid,
                nodes=one.nodes,
            )
            for one in answer.devices
        ]

    def detach(self, which: Attached | int | str | None = None) -> None:
        with self._lock:
            known = list(self._attached)
        found = [one for one in known if which is None or _is(one, which)]
        if which is not None and not found:
            there = ", ".join(f"{one.busid} at port {one.port}" for one in known) or "nothing"
            raise NotThere(f"{which!r} is not attached to {self._link.name}: there is {there}")
        for one in found:
            one.detach()

    def log(self, to: Callable[[str], object]) -> Callable[[], None]:
        self._listeners.append(to)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._listeners.remove(to)

        return end

    # --- what happens to the target ---

    def record(self, directory: Path) -> None:
        """Transfers go into a file of this directory from now on."""
        self.tap.record(directory)

    def must_be_free(self, what: str) -> None:
        """Raises Unsupported when a device is attached: it would be lost with its connection."""
        there = [one for one in self._attached if not one.lost]
        if there:
            names = ", ".join(f"{one.device or one.busid}" for one in there)
            raise Unsupported(
                self._link.name,
                f"way to {what} while USB devices are attached: {names}",
                mend="detach them first (hil.usb.detach()), and attach them again afterwards",
            )

    def lost(self, why: str) -> None:
        """The target has lost all of its devices. Does not wait."""
        with self._lock:
            self._losses += 1
            gone, self._attached = self._attached, []
        for one in gone:
            if one.lose(why):
                self.tell("lost", **_name(one.source), port=one.port, why=why)
        if gone:
            threading.Thread(
                target=_release, args=(gone,), name="hil-usb-release", daemon=True
            ).start()

    def close(self) -> None:
        """End everything. May be called twice."""
        with self._lock:
            self._closed = True
            gone, self._attached = self._attached, []
            exporter, self._exporter = self._exporter, None
            door = self._door
        for one in gone:
            one.lose("the target was closed")
        with contextlib.ExitStack() as everything:
            everything.callback(self.tap.close)
            if exporter is not None:
                everything.callback(exporter.close)
            everything.callback(_release, gone)
            if door is not None:
                everything.callback(door.close)

    # --- for what is attached ---

    def plug_device(self, attached: AttachedDevice, timeout: float) -> None:
        """Attach it, anew perhaps."""
        source = attached.source
        began, losses = time.monotonic(), self._losses
        self._open()
        source.offer()
        if isinstance(source, OwnSource):
            with self._lock:
                self._offered[source.busid] = source
        try:
            answer = self._take(source, began, timeout)
            attached.ready(answer, time.monotonic() - began)
            with self._lock:
                if self._losses != losses or self._closed:
                    raise NotThere(f"{source} is gone again: the target restarted, or was closed")
                self._attached.append(attached)
        except BaseException as error:
            self._withdraw(source)
            attached.lose("it could not be attached")
            self.tell("attach-failed", **_name(source), error=str(error))
            raise
        drivers = sorted({driver for _name, driver in answer.interfaces if driver})
        facts = {**_facts(source, answer, began), "drivers": drivers, "nodes": answer.nodes}
        self.tell("attach", **facts)

    def detach_device(self, attached: AttachedDevice, timeout: float) -> None:
        """By the target's wish."""
        self._let_go(attached, "detach", "it was detached", timeout)

    def unplug_device(self, attached: AttachedDevice, timeout: float) -> None:
        """Without asking the target."""
        self._withdraw(attached.source)
        self._let_go(attached, "settle", "it was unplugged", timeout)

    # --- how ---

    def _attach(self, source: Source, timeout: float) -> AttachedDevice:
        attached = AttachedDevice(self, source, timeout)
        self.plug_device(attached, timeout)
        return attached

    def _take(self, source: Source, began: float, timeout: float) -> Answer:
        """Let the target attach what is offered to it."""
        answer = Answer()
        what = f"{source} could not be attached to {self._link.name}"
        with _Turn(self._turn) as turn:
            door = self._link.open_door(source.arrived)
            turn.at_end(door.close)
            with self._lock:
                self._door = door
                known = " ".join(str(one.port) for one in self._attached)

            def heard(word: str) -> None:
                if word == "ids":
                    self._swept = True
                    turn.end()
                    self.tell("enumerate", **_facts(source, answer, began))

            where = (door.host, door.port, source.busid)
            sweep = "" if self._swept else "sweep"
            words = ["attach", *where, round(timeout), known, sweep]
            try:
                self._ask(what, words, timeout, answer, heard, door.why_not, source.troubles)
            except AttachFailed:
                # The target may have it on a port already.
                self._withdraw(source)
                with contextlib.suppress(HilError):
                    self._ask(what, ["forget", round(_GONE), *where], _GONE)
                raise
        return answer

    def _let_go(self, attached: AttachedDevice, action: str, why: str, timeout: float) -> None:
        with self._lock:
            if attached in self._attached:
                self._attached.remove(attached)
        what = f"{attached.source} could not be taken from {self._link.name}"
        words = [action, round(timeout), f"{attached.port}/{attached.busid}"]
        try:
            if self._link.up:
                self._ask(what, words, timeout)
        finally:
            self._withdraw(attached.source)
            if attached.lose(why):
                self.tell("detach", **_name(attached.source), port=attached.port, why=why)

    def _withdraw(self, source: Source) -> None:
        source.withdraw()
        with self._lock:
            if self._offered.get(source.busid) is source:
                del self._offered[source.busid]

    def _ask(
        self,
        what: str,
        words: Sequence[object],
        timeout: float,
        answer: Answer | None = None,
        heard: Callable[[str], object] = bool,
        why_not: Callable[[], str] = str,
        troubles: Callable[[], str] = str,
    ) -> Answer:
        return script.ask(
            what,
            self._link.run,
            words,
            timeout,
            answer=answer,
            heard=heard,
            why_not=why_not,
            troubles=troubles,
        )

    def _open(self) -> Exporter:
        """The exporter, made if there is none. Raises NotThere when the target is closed."""
        with self._lock:
            if self._closed:
                raise NotThere(f"the target {self._link.name} is closed: it has no USB")
            if self._exporter is None:
                self._exporter = Exporter(port=None, events=self._heard)
            return self._exporter

    # --- events ---

    def tell(self, what: str, **facts: Any) -> None:
        """Something happened: for events.jsonl, and for those who want lines."""
        self._link.tell("usb", what=what, **facts)
        if self._listeners:
            # A traceback is nothing for one line.
            plain = {key: fact for key, fact in facts.items() if key != "traceback"}
            line = format_line(UsbEvent.of(what, **plain))
            for listener in list(self._listeners):
                listener(line)

    def _heard(self, _kind: str, *, what: str, **facts: Any) -> None:
        """Of the exporter, in any thread."""
        if what == "device-error":
            source = self._offered.get(facts["busid"])
            if source is not None:
                source.heard(facts.get("traceback", facts["error"]))
        self.tell(what, **facts)


class _Turn:
    """The time from the target's usbip until its kernel has read the device: one at a time.

    Two of the tool at once may choose the same port, and the second then tries it for ever; and it
    ends with an error where a device has a number but is not in sysfs yet (Linux, tools/usb/usbip,
    usbip_attach.c import_device, vhci_driver.c parse_status). The kernel's hub thread takes its
    ports one by one in any case. A connection does not say whose device it is for, either.
    """

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._with_it = contextlib.ExitStack()

    def __enter__(self) -> _Turn:
        self._lock.acquire()
        self._with_it.callback(self._lock.release)
        return self

    def at_end(self, call: Callable[[], object]) -> None:
        """To be done before the next one's turn."""
        self._with_it.callback(call)

    def end(self) -> None:
        """The next may come. May be called twice."""
        self._with_it.close()

    def __exit__(self, *exc: object) -> None:
        self.end()


def _name(source: Source) -> dict[str, Any]:
    remote = {"remote": source.text} if source.text else {}
    return {"busid": source.busid, **remote}


def _facts(source: Source, answer: Answer, began: float) -> dict[str, Any]:
    return {
        **_name(source),
        "guest": answer.guest_busid,
        "port": answer.port,
        "vendor": f"{answer.vendor_id:#06x}",
        "product": f"{answer.product_id:#06x}",
        "ms": round((time.monotonic() - began) * 1000),
    }


def _is(attached: AttachedDevice, which: Attached | int | str) -> bool:
    if isinstance(which, int):
        return attached.port == which
    if isinstance(which, str):
        return which in (attached.busid, attached.guest_busid, *attached.nodes)
    return which is attached


def _release(gone: Sequence[AttachedDevice]) -> None:
    for one in gone:
        one.source.withdraw()
