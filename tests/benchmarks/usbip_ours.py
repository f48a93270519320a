"""Runs in a process of its own: our exporter with a loopback device, until its input ends.

Prints the port. Bulk IN 4 always has something to say, bulk OUT 4 swallows everything.
"""

from __future__ import annotations

import sys

from pytest_hil.usbip.exporter import Exporter
from pytest_hil.usbip.virtual.vendor import Loopback


def main() -> None:
    with Exporter() as exporter:
        exporter.plug(Loopback())
        sys.stdout.write(f"{exporter.address[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
