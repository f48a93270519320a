"""USB without a machine: the fixture ``hil_usb``; and the lines of ``--hil-usb-log``."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import pytest

from pytest_hil.errors import Unsupported
from pytest_hil.plugin import options
from pytest_hil.plugin.artifacts import directory_of
from pytest_hil.plugin.items import worker_id

if TYPE_CHECKING:
    from pytest_hil.artifacts.store import TestDir
    from pytest_hil.target import Target
    from pytest_hil.usbip.exporter import Exporter, Plugged
    from pytest_hil.usbip.urb import Exportable

_LOG = pytest.StashKey["UsbLog"]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-usb-log",
        metavar="FILE",
        help="append what happens to USB devices to a file, as lines for scripts (hil-usb: …); "
        "- is the terminal",
    )


def pytest_configure(config: pytest.Config) -> None:
    where: str | None = config.getoption("hil_usb_log")
    if where is None:
        return
    if where == "-" and worker_id(config):
        raise pytest.UsageError("--hil-usb-log=-: xdist's workers have no terminal; name a file")
    config.stash[_LOG] = UsbLog(config, where)


def pytest_unconfigure(config: pytest.Config) -> None:
    if (log := config.stash.get(_LOG, None)) is not None:
        log.close()


class UsbLog:
    """Where the lines go. Any thread may write; each line is written whole."""

    def __init__(self, config: pytest.Config, where: str) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._known: weakref.WeakSet[Target] = weakref.WeakSet()
        self._file: TextIO | None = None
        if where != "-":
            path = Path(where).expanduser().absolute()
            try:
                self._file = path.open("a", buffering=1, encoding="ascii")
            except OSError as error:
                raise pytest.UsageError(
                    f"--hil-usb-log: {path} cannot be written: {error.strerror}"
                ) from None

    def follow(self, target: Target) -> None:
        """Write down what happens to this target's devices from now on."""
        if target not in self._known:
            target.usb.log(self.write)
            self._known.add(target)

    def write(self, line: str) -> None:
        with self._lock:
            if self._file is not None:
                self._file.write(f"{line}\n")
                return
            reporter = self._config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.ensure_newline()
                reporter.write_line(line)

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


def pytest_hil_ready(target: Target, item: pytest.Item) -> None:
    log = item.config.stash.get(_LOG, None)
    if log is not None and "usb" in target.features:
        # A board's features are also words of its owner's: it may have another kind of USB.
        with contextlib.suppress(Unsupported):
            log.follow(target)


class HilUsb:
    """An exporter on loopback, made when the first device is exported or its address asked for.

    What the devices do is in the test's artifacts: ``hil_usb/usb.pcap`` and events.jsonl.
    """

    def __init__(self, directory: Callable[[], TestDir], log: UsbLog | None) -> None:
        self._open_directory = directory
        self._directory: TestDir | None = None
        self._log = log
        self._lock = threading.Lock()
        self._exporter: Exporter | None = None
        self._observer: Any = None

    def export(self, device: Exportable, *, busid: str = "") -> Plugged:
        """Offer a device to importers on this host; ``busid`` "": the next that is free.

        A context manager that takes it away; the test's end does so, too.
        """
        exporter = self.exporter
        return exporter.plug(device, busid=busid, observer=self._observer)

    @property
    def exporter(self) -> Exporter:
        """The exporter itself."""
        with self._lock:
            if self._exporter is None:
                from pytest_hil.attach.capture import Tap
                from pytest_hil.usbip.exporter import Exporter

                # Not before: a test that uses nothing has no directory.
                self._directory = self._open_directory()
                place = self._directory.path / "hil_usb"
                place.mkdir(exist_ok=True)
                self._observer = Tap()
                self._observer.record(place)
                self._exporter = Exporter(events=self._heard)
            return self._exporter

    @property
    def address(self) -> tuple[str, int]:
        """Where the devices are offered: host and port."""
        return self.exporter.address

    def pyusb(self, *addresses: str | tuple[str, int]) -> AbstractContextManager[Any]:
        """Within it, pyusb finds what these exporters offer; with no address, what this one does.

        Needs pyusb (the extra ``usb``), and neither a kernel module nor root.
        """
        from pytest_hil.usbip.pyusb_backend import pyusb

        made: AbstractContextManager[Any] = pyusb(*(addresses or (self.exporter,)))
        return made

    def _heard(self, kind: str, *, what: str, **facts: Any) -> None:
        assert self._directory is not None
        self._directory.events(kind, what=what, target="hil_usb", **facts)
        if self._log is not None:
            from pytest_hil.usbip.events import UsbEvent, format_line

            plain = {key: fact for key, fact in facts.items() if key != "traceback"}
            self._log.write(format_line(UsbEvent.of(what, **plain)))

    def close(self) -> None:
        """Take all devices away. May be called twice."""
        with self._lock:
            exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()
            self._observer.close()


@pytest.fixture
def hil_usb(request: pytest.FixtureRequest) -> Iterator[HilUsb]:
    """USB devices for programs on this host, with no machine: ``hil_usb.export(device)``."""
    made = HilUsb(lambda: directory_of(request.node), request.config.stash.get(_LOG, None))
    yield made
    made.close()
