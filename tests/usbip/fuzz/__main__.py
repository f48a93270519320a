"""One target under Atheris: started by scripts/fuzz-usbip, which reads the figures it leaves."""

from __future__ import annotations

import argparse
import importlib
import json
import resource
import sys
from pathlib import Path
from typing import Any

PAGE = resource.getpagesize()
# Runs between two looks at the memory.
OFTEN = 1024


class Counted:
    """A target, and what its runs cost: the resident memory after a tenth of them and at the end.

    libFuzzer leaves the process without any goodbye, so the figures are written as it goes.
    """

    def __init__(self, target: Any, runs: int, figures: Path) -> None:
        self._target = target
        self._all = runs
        self._figures = figures
        self._runs = 0
        self._warm = 0

    def __call__(self, data: bytes) -> None:
        self._target(data)
        self._runs += 1
        if self._runs % OFTEN == 0 or self._runs == self._all:
            self._write()

    def _write(self) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * PAGE
        if not self._warm and self._runs >= self._all // 10:
            self._warm = resident
        figures = {"runs": self._runs, "warm": self._warm, "resident": resident}
        self._figures.write_text(json.dumps(figures))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target", choices=["exporter-parser", "importer-parser", "live-exporter"])
    parser.add_argument("--runs", type=int, required=True)
    parser.add_argument("--figures", type=Path, required=True)
    options, libfuzzer = parser.parse_known_args()
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["pytest_hil.usbip"]):
        targets = importlib.import_module("tests.usbip.fuzz.targets")
    target = {
        "exporter-parser": lambda: targets.exporter_parser,
        "importer-parser": lambda: targets.importer_parser,
        "live-exporter": targets.LiveExporter,
    }[options.target]()
    counted = Counted(target, options.runs, options.figures)
    atheris.Setup([sys.argv[0], f"-runs={options.runs}", *libfuzzer], counted)
    atheris.Fuzz()


main()
