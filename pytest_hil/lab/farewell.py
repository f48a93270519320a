"""The last word of a process that is told to end, or forgets to close what it has elsewhere.

What a lab of this host holds are locks, which go with their holder. A coordinator on another host
has to be told: at the interpreter's end, and on SIGTERM and SIGHUP where nobody else handles them;
after it the signal does what it would have done.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
from types import FrameType
from typing import Protocol

_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
# Seconds that a process that was told to end takes for it at most.
_PATIENCE = 5.0

_open: list[Leaver] = []
_installed_by = 0


class Leaver(Protocol):
    """What has something elsewhere."""

    def leave(self) -> None:
        """Give it back. Called in a thread of its own, whatever the others hold."""


def remember(one: Leaver) -> None:
    """It leaves when this process ends, however that is announced."""
    global _installed_by
    if one not in _open:
        _open.append(one)
    if _installed_by != os.getpid():
        _installed_by = os.getpid()
        atexit.register(_leave)
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                if signal.getsignal(number) == signal.SIG_DFL:
                    signal.signal(number, _signalled)


def forget(one: Leaver) -> None:
    """It has nothing any more."""
    if one in _open:
        _open.remove(one)


def _leave() -> None:
    for one in list(_open):
        one.leave()


def _signalled(number: int, _frame: FrameType | None) -> None:
    # The main thread may hold any lock just now: another one leaves, and is not waited for forever.
    thread = threading.Thread(target=_leave, name="hil-farewell", daemon=True)
    thread.start()
    thread.join(_PATIENCE)
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
