"""Calls at their time: what paces isochronous transfers, and delays faulty ones."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable


class Scheduler:
    """One thread, there only while something is due. Any thread may call."""

    def __init__(self, name: str = "hil-usbip-scheduler") -> None:
        self._name = name
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self._number = itertools.count()
        self._thread: threading.Thread | None = None

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Call it at that time of :func:`time.monotonic`, or soon after. It must not raise."""
        with self._changed:
            heapq.heappush(self._due, (when, next(self._number), call))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def clear(self) -> None:
        """Forget all that is due."""
        with self._changed:
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._due and (left := self._due[0][0] - time.monotonic()) > 0:
                    self._changed.wait(left)
                if not self._due:
                    self._thread = None
                    return
                call = heapq.heappop(self._due)[2]
            call()
