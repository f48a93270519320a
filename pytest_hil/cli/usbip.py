"""``pytest-hil usbip``: USB/IP servers, checked, listed, and run by hand."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_hil.errors import ConfigError, HilError, nearest, visible
from pytest_hil.usbip.messages import PORT, Device, Speed, parse_address

if TYPE_CHECKING:
    from pytest_hil.cli.main import Subparsers
    from pytest_hil.usbip.conformance import Check, Outcome
    from pytest_hil.usbip.urb import Exportable

_DEVICES = ("loopback", "keyboard", "mouse", "serial", "stick=FILE", "MODULE:CLASS")
_STYLES = {"pass": "green", "fail": "bold red", "not applicable": "yellow"}
_WORDS = {"pass": "ok", "fail": "FAIL", "not applicable": "n/a"}
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Declare the verb."""
    parser = subparsers.add_parser(
        "usbip",
        help="check, list and run USB/IP servers",
        description="USB/IP servers, ours and others': Linux's usbipd, firmware, anything.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_check(actions)
    _add_list(actions)
    _add_export(actions)
    return parser


def _add_check(actions: Subparsers) -> None:
    check = actions.add_parser(
        "check",
        help="say where a server does not keep to the protocol",
        description="Put a server to all checks, hostile ones too. Its device is configured and "
        "used. Exit code 0: none failed; 1: some did.",
    )
    check.add_argument("server", metavar="HOST[:PORT]", help=f"default port: {PORT}")
    check.add_argument("--busid", default="", help="its device to use (default: the first)")
    check.add_argument("--json", action="store_true", help="JSON instead of text")
    check.add_argument("--only", metavar="PATTERN", help="a check's id, or such as 'urb-*'")
    check.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_positive,
        default=5.0,
        help="for one answer (default: 5); all checks together may take 36 times that",
    )


def _add_list(actions: Subparsers) -> None:
    listing = actions.add_parser("list", help="list what a server exports")
    listing.add_argument("server", metavar="HOST[:PORT]", help=f"default port: {PORT}")
    listing.add_argument("--json", action="store_true", help="JSON instead of text")


def _add_export(actions: Subparsers) -> None:
    export = actions.add_parser(
        "export",
        help="export virtual devices until Ctrl-C",
        description="Export virtual devices until Ctrl-C. `serial` sends back what is written to "
        "it; MODULE:CLASS is a device of yours, looked for in this directory too.",
    )
    export.add_argument("devices", metavar="DEVICE", nargs="+", help=", ".join(_DEVICES))
    export.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=f"127.0.0.1:{PORT}",
        help=f"default: 127.0.0.1:{PORT}; port 0: one that is free",
    )
    export.add_argument(
        "--allow",
        metavar="ADDRESS",
        action="append",
        default=[],
        help="who may come, needed on other addresses than 127.0.0.1: an address, a network, or *",
    )


def run(args: argparse.Namespace) -> int:
    """Do it; the exit code."""
    if args.action == "check":
        return _check(args)
    if args.action == "list":
        return _list(args)
    return _export(args)


# --- check ---


def _check(args: argparse.Namespace) -> int:
    from pytest_hil.usbip.conformance import CHECKS, Runner

    address = _address(args.server)
    chosen = _chosen(CHECKS, args.only)
    runner = Runner(address, args.busid, step=args.timeout, total=36 * args.timeout)
    done = []
    for outcome in runner.run_all(chosen):
        done.append(outcome)
        if not args.json:
            _print_outcome(outcome)
    counts = {word: sum(one.result == word for one in done) for word in _WORDS}
    if args.json:
        rows = [one.row() for one in done]
        print(json.dumps({"server": args.server, "counts": counts, "checks": rows}, indent=2))
    else:
        print("\n" + ", ".join(f"{count} {word}" for word, count in counts.items()))
    return 1 if counts["fail"] else 0


def _chosen(checks: Sequence[Check], pattern: str | None) -> list[Check]:
    """Those whose id the pattern fits, all of it. Raises ConfigError when there are none."""
    chosen = [one for one in checks if pattern is None or fnmatchcase(one.id, pattern)]
    if not chosen:
        mend = nearest(pattern or "", [one.id for one in checks])
        raise ConfigError("--only", f"no check is called {pattern!r}", mend=mend)
    return chosen


def _print_outcome(outcome: Outcome) -> None:
    from rich.console import Console
    from rich.text import Text

    # Whole lines, also where no person reads them.
    console = Console(file=sys.stdout, width=10_000, highlight=False, soft_wrap=True)
    result = outcome.result.value
    line = Text(f"{_WORDS[result]:<5}", style=_STYLES[result])
    console.print(line.append(f"{outcome.check.id:<26} {outcome.check.title}", style="default"))
    for name, text in _details(outcome):
        console.print(Text(f"     {name:<9}{visible(text)}"))


def _details(outcome: Outcome) -> Iterator[tuple[str, str]]:
    """What a person has to know besides the title."""
    if outcome.result == "fail":
        yield "expected", outcome.expected
        yield "seen", outcome.seen
        yield "rule", outcome.check.source
    elif outcome.reason:
        yield "because", outcome.reason


# --- list ---


def _list(args: argparse.Namespace) -> int:
    from pytest_hil.usbip.importer import list_devices

    devices = list_devices(_address(args.server))
    if args.json:
        print(json.dumps([_facts(device) for device in devices], indent=2))
    elif not devices:
        print(f"{args.server} exports nothing")
    for device in () if args.json else devices:
        facts = _facts(device)
        classes = " ".join(facts["interfaces"])
        print(f"{visible(device.busid):<12} {facts['id']}  {facts['speed']:<10} {classes}")
    return 0


def _facts(device: Device) -> dict[str, Any]:
    speed = device.speed
    return {
        "busid": device.busid,
        "id": f"{device.vendor_id:04x}:{device.product_id:04x}",
        "speed": speed.name.lower().replace("_", "-") if isinstance(speed, Speed) else str(speed),
        "interfaces": [
            f"{one.interface_class:02x}/{one.subclass:02x}/{one.protocol:02x}"
            for one in device.interfaces
        ],
        "path": device.path,
    }


# --- export ---


def _export(args: argparse.Namespace) -> int:
    from pytest_hil.usbip.exporter import Exporter

    host, port = _listen(args.listen)
    devices = [_device(text) for text in args.devices]
    # Before any thread is there, so that all of them leave these to us.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        with Exporter(host=host, port=port, allow=args.allow) as exporter:
            for text, device in zip(args.devices, devices, strict=True):
                print(f"{exporter.plug(device).busid}  {text}")
            name = f"[{host}]" if ":" in host else host
            print(f"listening on {name}:{exporter.address[1]}; Ctrl-C ends it", flush=True)
            signal.sigwait(_SIGNALS)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return 0


def _device(text: str) -> Exportable:
    """What a word of the command line stands for. Raises ConfigError."""
    from pytest_hil.usbip.virtual import hid, vendor
    from pytest_hil.usbip.virtual.mass_storage import MassStorage

    kind, sign, rest = text.partition("=")
    if kind == "stick" and sign and rest:
        return MassStorage(rest)
    if ":" in text:
        return _yours(text)
    if text == "loopback":
        return vendor.Loopback()
    if text == "keyboard":
        return hid.Keyboard()
    if text == "mouse":
        return hid.Mouse()
    if text == "serial":
        return _echo()
    raise ConfigError(
        "DEVICE", f"{text!r} is none of {', '.join(_DEVICES)}", mend=nearest(text, _DEVICES)
    )


def _echo() -> Exportable:
    """A serial port that sends back what it gets."""
    from pytest_hil.usbip.virtual.cdc_acm import SerialPort

    port = SerialPort(timeout=None)

    def send_back() -> None:
        try:
            while True:
                port.write(port.read(1) + port.read(port.in_waiting))
        except HilError:
            return  # it was unplugged

    threading.Thread(target=send_back, name="hil-usbip-echo", daemon=True).start()
    return port


def _yours(text: str) -> Exportable:
    """A class of the user's. Raises ConfigError."""
    module, _sign, name = text.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made: Exportable = getattr(import_module(module), name)()
    except HilError:
        raise
    except Exception as error:
        mend = "write MODULE:CLASS, a class that is made without arguments"
        raise ConfigError("DEVICE", f"{text}: {error!r}", mend=mend) from error
    missing = [word for word in ("describe", "submit", "cancel") if not hasattr(made, word)]
    if missing:
        raise ConfigError("DEVICE", f"{text} is no device: it has no {_words(missing)}")
    return made


def _words(words: Iterable[str]) -> str:
    return " and no ".join(words)


# --- words of the command line ---


def _address(text: str) -> tuple[str, int]:
    try:
        return parse_address(text)
    except ValueError as error:
        raise ConfigError("HOST:PORT", str(error)) from None


def _listen(text: str) -> tuple[str, int]:
    if text.endswith(":0"):
        return _address(text.removesuffix(":0"))[0], 0
    return _address(text)


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError(f"{text} is not over 0 and below a day")
    return number
