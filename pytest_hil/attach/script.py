"""Asking the target to attach and to detach, and reading what it answers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pytest_hil.agent.protocol import STDOUT
from pytest_hil.errors import AttachFailed, CommandTimeout
from pytest_hil.target import Completed, UsbDevice

SCRIPT = Path(__file__).with_name("target.sh")

# Seconds on top of what the script allows itself, for a target that hardly runs.
_GRACE = 15.0

# What each phase waits for, in words.
_PHASES = {
    "": "the target's shell",
    "usbip": "its usbip tool",
    "hub": "its kernel, to read the device's descriptors",
    "configure": "its kernel, to configure the device",
    "drivers": "its drivers, to take their interfaces",
    "nodes": "its device nodes",
    "ready": "the end",
}


# Runs a command on the target: argv, seconds, and what gets (stream, bytes) as they come.
Run = Callable[[Sequence[str], float, Callable[[int, bytes], None]], Completed]


@dataclass(slots=True)
class Answer:
    """The script's words. ``phases`` are names and the target's uptime in seconds."""

    phases: list[tuple[str, float]] = field(default_factory=list)
    port: int = -1
    guest_busid: str = ""
    vendor_id: int = 0
    product_id: int = 0
    interfaces: list[tuple[str, str]] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    devices: list[UsbDevice] = field(default_factory=list)
    kernel: list[str] = field(default_factory=list)
    failed: str = ""

    @property
    def phase(self) -> str:
        """What it waited for last."""
        return _PHASES[self.phases[-1][0] if self.phases else ""]

    def hear(self, line: str) -> str:
        """A line of the script's stdout; its first word, or "" if it is none of ours."""
        word, _, rest = line.partition(" ")
        match word, rest.split():
            case "phase", [name, uptime] if name in _PHASES:
                self.phases.append((name, float(uptime)))
            case "port", [number]:
                self.port = int(number)
            case "guest", [busid]:
                self.guest_busid = busid
            case "ids", [vendor, product]:
                self.vendor_id, self.product_id = int(vendor, 16), int(product, 16)
            case "interface", [name, driver]:
                self.interfaces.append((name, "" if driver == "-" else driver))
            case "node", [path] if self.devices:
                last = self.devices[-1]
                self.devices[-1] = replace(last, nodes=(*last.nodes, path))
            case "node", [path]:
                self.nodes.append(path)
            case "attached", [port, guest, vendor, product, host, door, busid]:
                self.devices.append(
                    UsbDevice(
                        port=int(port),
                        guest_busid=guest,
                        vendor_id=int(vendor, 16),
                        product_id=int(product, 16),
                        remote="" if host == "-" else f"{host}:{door}",
                        busid="" if busid == "-" else busid,
                        nodes=(),
                    )
                )
            case "kernel", _:
                self.kernel.append(rest)
            case "failed", [why]:
                self.failed = why
            case _:
                return ""
        return word


class _Ear:
    """Makes lines of a command's output."""

    def __init__(self, answer: Answer, heard: Callable[[str], object]) -> None:
        self.answer = answer
        self.stderr = bytearray()
        self._heard = heard
        self._rest = b""

    def take(self, stream: int, data: bytes) -> None:
        if stream != STDOUT:
            self.stderr += data
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._heard(self.answer.hear(line.decode(errors="replace")))


def ask(
    what: str,
    run: Run,
    words: Sequence[object],
    timeout: float,
    *,
    answer: Answer | None = None,
    heard: Callable[[str], object] = bool,
    why_not: Callable[[], str] = str,
    troubles: Callable[[], str] = str,
) -> Answer:
    """Run the script with these words, which allows itself ``timeout`` seconds.

    ``what`` begins the sentence of an error; ``answer`` is filled line by line, and ``heard`` gets
    each line's first word; ``why_not`` says why the target may not have come to our exporter,
    ``troubles`` what the device's handlers raised.
    Raises AttachFailed, Unsupported.
    """
    answer = Answer() if answer is None else answer
    ear = _Ear(answer, heard)

    def fail(why: str) -> AttachFailed:
        kernel = "\n".join(answer.kernel)
        if answer.phases and answer.phases[-1][0] == "usbip":
            why = "; ".join(filter(None, (why, why_not())))
        return AttachFailed(what, why, phase=answer.phase, kernel=kernel, device=troubles())

    argv = ["/bin/sh", "-c", _text(), "hil-usb", *map(str, words)]
    try:
        done = run(argv, timeout + _GRACE, ear.take)
    except CommandTimeout as error:
        raise fail(f"the target did not answer within {timeout + _GRACE:g} s") from error
    if done.exit_code == 0:
        return answer
    said = _words(ear.stderr.decode(errors="replace"))
    raise fail(
        {
            "vhci": "its kernel has no vhci_hcd (CONFIG_USBIP_VHCI_HCD), also not as a module",
            "root": "only root may attach USB devices, and its shell is another user's",
            "tool": "it has no usbip tool (Debian: usbip), and neither bash nor busybox's nc "
            "that could do without",
            "usbip": f"its usbip says: {said}",
            "import": f"without a usbip tool it could not import the device: {said}",
            "detach": f"its kernel does not detach it: {said}",
            "late": f"it took longer than {timeout:g} s",
            "ended": "the connection to its exporter ended",
            "port": "its usbip tool put it on no port",
            "refused": "its kernel gave the device up",
        }.get(answer.failed, f"the target says: {said}")
    )


@functools.cache
def _text() -> str:
    """The script without its comments: a serial line takes a tenth of a second for a kilobyte."""
    lines = SCRIPT.read_text().splitlines()
    return "\n".join(one for one in lines if not one.lstrip().startswith("#"))


def _words(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line and "info: " not in line]
    return " / ".join(lines) or "nothing"
