"""Runs in the peer's own environment: the package ``usbip`` exports a device, until its input ends.

Prints the port. Bulk IN 4 has so many messages of 64 bytes ready as the argument says: its fastest
path is to take one that waits. Bulk OUT 4 swallows everything.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any


def main() -> None:
    # Not an import statement: the package is never there where this file is type-checked.
    usbip: Any = importlib.import_module("usbip")

    class Bulk(usbip.Interface):  # type: ignore[misc]
        source = usbip.In(0x84, "bulk", 512)
        sink = usbip.Out(0x04, "bulk", 512)

        def on_out(self, ep: Any, data: bytes) -> None:
            pass

        def on_reset(self) -> None:
            # An importer's coming empties the queues.
            for _ in range(int(sys.argv[1])):
                self.source.write(bytes(64))

    transport = usbip.USBIP("127.0.0.1", 0)
    device = usbip.USBDevice(0x1209, 0x0001)
    device.set_speed(usbip.SPEED_HIGH)
    device.add(Bulk())
    device.plug(transport)
    port = transport._listener.socks[0].getsockname()[1]
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
