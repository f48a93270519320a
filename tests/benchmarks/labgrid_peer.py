"""Runs in the peer's own environment: boots machines with labgrid and says how long it took.

One JSON object a line, {"do": "fresh" | "open" | "run" | "close"}, answered by {"seconds": …} or
{"error": …}. The clock is read here, so the pipe between us costs the peer nothing. The end of the
input is the end.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any


class Labgrid:
    """One machine at a time, as a labgrid test would get it."""

    def __init__(self, configuration: str) -> None:
        # Not an import statement: labgrid is never there where this file is type-checked.
        self._labgrid: Any = importlib.import_module("labgrid")
        self._configuration = configuration
        self._target: Any = None
        self._shell: Any = None

    def fresh(self) -> float:
        seconds = self.open()
        self.close()
        return seconds

    def open(self) -> float:
        """Everything that labgrid needs only once a session is made before the clock starts."""
        target = self._labgrid.Environment(self._configuration).get_target("main")
        began = time.perf_counter()
        qemu = target.get_driver("QEMUDriver")
        qemu.on()
        shell = target.get_driver("ShellDriver")
        shell.run_check("true")
        seconds = time.perf_counter() - began
        self._target, self._shell = target, shell
        return seconds

    def run(self) -> float:
        began = time.perf_counter()
        self._shell.run_check("true")
        return time.perf_counter() - began

    def close(self) -> float:
        target, self._target = self._target, None
        if target is not None:
            target.cleanup()
        return 0.0


def main() -> None:
    # Whatever anybody prints must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    peer = Labgrid(sys.argv[1])
    actions = {"fresh": peer.fresh, "open": peer.open, "run": peer.run, "close": peer.close}
    try:
        for line in sys.stdin:
            try:
                answer: dict[str, object] = {"seconds": actions[json.loads(line)["do"]]()}
            except Exception as error:  # it goes on: the next machine may do better
                answer = {"error": f"{type(error).__name__}: {error}"}
            answers.write(json.dumps(answer) + "\n")
    finally:
        peer.close()


if __name__ == "__main__":
    main()
