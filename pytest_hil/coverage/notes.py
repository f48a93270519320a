"""The .gcno file of a .gcda: where the compiler left it, or wherever it is now."""

from __future__ import annotations

import os
from pathlib import Path

from pytest_hil.coverage import records
from pytest_hil.coverage.paths import Sources
from pytest_hil.coverage.records import Header
from pytest_hil.errors import CoverageError, ForeignCoverage

# What no build leaves its files in, and what would take long to search.
_SKIPPED = frozenset({".git", ".hg", ".hil", ".tox", ".venv", "node_modules", "__pycache__"})


class Notes:
    """Finds them. A tree is searched at most once, and only when a file is not at its place."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._index: dict[str, list[Path]] | None = None

    def find(self, built: str, header: Header, *, kernel: bool = False) -> Path:
        """The .gcno of the .gcda that a program writes to ``built``.

        Raises CoverageError when there is none, ForeignCoverage when there are others only.
        """
        if not built.startswith("/") or not built.endswith(".gcda") or "\0" in built:
            # Whoever sent it over a console may call it anything.
            raise CoverageError(f"{built!r} is no path of counters: /…/NAME.gcda")
        notes = Path(self._sources.here(built)).with_suffix(".gcno")
        foreign: Path | None = None
        places = [notes]
        if kernel:
            # Its objects may be apart from its sources: what is mapped are the sources.
            places.append(Path(built).with_suffix(".gcno"))
        for path in [*places, *self._elsewhere(notes.name)]:
            if not path.is_file():
                continue
            if records.read_notes(path).stamp == header.stamp:
                return path
            foreign = foreign or path
        if foreign is not None:
            raise ForeignCoverage(
                f"{built} is of another build than {foreign}: their stamps are "
                f"{header.stamp:#010x} and {records.read_notes(foreign).stamp:#010x}; "
                "nothing of it was counted",
                mend="the target runs a program that was not built here last: build, then put "
                "what was built",
            )
        searched = ", ".join(map(str, self._sources.searched))
        raise CoverageError(
            f"{built}: there is no {notes.name} of it, neither at {notes} nor below {searched}",
            mend="gcc writes it when it compiles with --coverage: keep it beside the object file, "
            "and name the build's directory: hil_cov_map = BUILT=HERE",
        )

    def _elsewhere(self, name: str) -> list[Path]:
        if self._index is None:
            self._index = {}
            for root in self._sources.searched:
                for directory, below, files in os.walk(root):
                    below[:] = sorted(set(below) - _SKIPPED)
                    for each in files:
                        if each.endswith(".gcno"):
                            self._index.setdefault(each, []).append(Path(directory, each))
        return self._index.get(name, [])
