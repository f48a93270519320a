"""The transfers of a target's devices, into usb.pcap of whatever test uses it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hil.usbip.messages import Bytes, Device, IsoPacket
from pytest_hil.usbip.urb import Urb

if TYPE_CHECKING:
    from pytest_hil.usbip.pcap import Capture

NAME = "usb.pcap"


class Tap:
    """An observer of devices, which writes into the directory that is the right one now.

    The file is made at the first transfer. Trouble with the disk ends the capture, and nothing
    else.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._directory: Path | None = None
        self._capture: Capture | None = None

    def record(self, directory: Path | None) -> None:
        """From now on into this directory; None: nowhere."""
        with self._lock:
            if self._capture is not None:
                self._capture.close()
                self._capture = None
            self._directory = directory

    def _now(self) -> Capture | None:
        with self._lock:
            if self._capture is None and self._directory is not None:
                from pytest_hil.usbip.pcap import Capture

                try:
                    self._capture = Capture(self._directory / NAME)
                except OSError:
                    self._directory = None
            return self._capture

    def submitted(self, urb: Urb, description: Device) -> None:
        capture = self._now()
        if capture is not None:
            capture.submitted(urb, description)

    def completed(
        self, urb: Urb, status: int, data: Bytes, actual: int, iso: Sequence[IsoPacket]
    ) -> None:
        capture = self._now()
        if capture is not None:
            capture.completed(urb, status, data, actual, iso)

    def close(self) -> None:
        """End the file. May be called twice."""
        self.record(None)
