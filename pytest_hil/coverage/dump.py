"""Counters of firmware, taken from its console as they come."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from pytest_hil.console.session import Console
from pytest_hil.coverage.frames import Decoder
from pytest_hil.coverage.gcov import Counters
from pytest_hil.errors import CoverageError, HilError

# A dump that has stopped for so long has ended.
QUIET = 3.0

_log = logging.getLogger(__name__)


class ConsoleDumps:
    """Listens to a console all the time, and answers."""

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._console: Console | None = None
        self._stop: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._received = 0

    def listen(self, console: Console) -> None:
        """To this console, with all that it has said in this life; to the same one, nothing."""
        if console is self._console:
            return
        self.close()
        self._console = console
        replay = console.mark().raw - console.inherited
        self._stop = console.subscribe(self._take, replay=max(0, replay))

    def close(self) -> None:
        stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def _take(self, data: bytes) -> None:
        """Called in the console's reading thread."""
        console = self._console
        with self._changed:
            answer = self._decoder.feed(data)
            self._received += 1
            self._changed.notify_all()
        if answer and console is not None:
            try:
                console.send(answer, timeout=1.0)
            except HilError as error:
                _log.debug("no answer to a dump of counters: %s", error)

    def restarted(self) -> None:
        """The firmware is about to begin anew."""
        with self._changed:
            self._decoder.restarted()

    def settle(self, quiet: float = QUIET) -> None:
        """Wait for the end of a dump that has begun, as long as it goes on."""
        with self._changed:
            while self._decoder.waiting:
                before, ends = self._received, time.monotonic() + quiet
                while self._received == before and time.monotonic() < ends:
                    self._changed.wait(max(0.0, ends - time.monotonic()))
                if self._received == before:
                    break
            self._decoder.finish()

    def take(self) -> tuple[list[dict[str, bytes]], list[CoverageError]]:
        """What came, for each start of the firmware, and what is wrong with it.

        What its last start counted stays: it goes on.
        """
        with self._changed:
            boots, problems = self._decoder.boots, self._decoder.problems
            self._decoder.boots, self._decoder.problems = [dict(boots[-1])], []
            return boots, problems


def keep(files: dict[str, bytes], into: Path) -> list[Counters]:
    """Write the files of one start below a directory; their names there are ours."""
    out = []
    if files:
        into.mkdir(parents=True, exist_ok=True)
    for name, content in sorted(files.items()):
        short = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]
        path = into / f"{short}-{Path(name).name[-80:].replace(chr(0), '_')}"
        path.write_bytes(content)
        out.append(Counters(path, name))
    return out
