"""Runs in a guest: exports a device that the guest's kernel has, by libusb.

Arguments: VENDOR PRODUCT, in hexadecimal. Says "listening" when somebody can import it, "unplug …"
when the device has left, and "closed" after SIGTERM, when it has let go of everything.
"""

from __future__ import annotations

import signal
import sys
import threading

from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.passthrough_libusb1 import AsyncPassthrough


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def tell(_kind: str, *, what: str, **facts: object) -> None:
    if what in ("unplug", "device-error"):
        say(f"{what} {facts}")


def main() -> None:
    vendor, product = (int(word, 16) for word in sys.argv[1:3])
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    with (
        AsyncPassthrough.find(vendor_id=vendor, product_id=product) as device,
        Exporter(host="0.0.0.0", port=3240, allow=["*"], events=tell) as exporter,
    ):
        exporter.plug(device)
        say("listening")
        over.wait()
    threads = [one.name for one in threading.enumerate() if one is not threading.main_thread()]
    say(f"closed {threads}")


if __name__ == "__main__":
    main()
