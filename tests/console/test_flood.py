"""A target that prints and prints: nothing grows, nothing is lost, nothing is quadratic."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.console.conftest import Connect

MiB = 2**20
FLOOD = 200 * MiB

# Another process prints, as a machine would: a thread of ours would share our CPU time.
PRINTER = r"""
import socket, sys
line = b"[   12.345678] usb 1-1: new high-speed USB device number 5 using vhci_hcd\r\n"
target = socket.socket(fileno=0)
target.setblocking(True)
left, block = int(sys.argv[1]), line * 3000
while left > 0:
    target.sendall(block)
    left -= len(block)
target.sendall(b"\r\nthe end\r\n")
"""


def test_200_mb_pass_an_expect_that_waits(connect: Connect) -> None:
    line = connect()
    printer = subprocess.Popen(
        [sys.executable, "-c", PRINTER, str(FLOOD)], stdin=line.target.fileno()
    )
    # What the console says when the printer fails is its end, not 60 s of silence.
    line.target.close()
    tracemalloc.start()
    began = time.monotonic()
    with printer, line.console:
        match = line.console.expect(["the end", "Kernel panic", "login: $"], timeout=60)
    took = time.monotonic() - began
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert match.text == "the end"
    assert match.before.startswith("[pytest-hil: ")
    assert line.console.mark().raw > FLOOD
    assert peak < 40 * MiB
    # 50 MB/s is what is promised on a quiet host; here other tests run beside.
    assert FLOOD / took > 20e6
