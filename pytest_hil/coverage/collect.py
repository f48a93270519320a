"""A target's coverage, test by test: from its files, its kernel and its console.

It follows the target (:class:`pytest_hil.target.Follower`), so that what it counted is here before
the target forgets it. Whatever goes wrong is kept as a problem, and no test fails by it before
:meth:`Collector.end` says so.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pytest_hil.coverage import kernel, python, shard
from pytest_hil.coverage.dump import ConsoleDumps, keep
from pytest_hil.coverage.files import TargetFiles
from pytest_hil.coverage.gcov import Gcov, Read
from pytest_hil.coverage.kernel import DEBUGFS, KernelCounters
from pytest_hil.coverage.model import FileCoverage, merge_file, subtract
from pytest_hil.coverage.paths import Sources
from pytest_hil.errors import (
    CommandTimeout,
    CoverageError,
    Crashed,
    HilError,
    InfrastructureError,
    NotThere,
    ToolMissing,
)
from pytest_hil.target import Opened

SHARD = "coverage.jsonl"
PROBLEMS = "problems.jsonl"

# The target itself is gone: what it had not told is lost with it, and no fault of this module.
_GONE = (InfrastructureError, NotThere, Crashed, CommandTimeout)
_LONGEST = 1000


@dataclass(slots=True)
class Found:
    """What one test came to. ``notes``: what could not be fetched: of a crashed target, say."""

    files: list[FileCoverage] = field(default_factory=list)
    problems: list[CoverageError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Collector:
    """One target's. ``kernel_tree`` is where its kernel's counters are."""

    def __init__(
        self,
        target: Opened,
        sources: Sources,
        *,
        gcov: str = "",
        kernel_tree: str = DEBUGFS,
        scratch: str = "/tmp",
    ) -> None:
        self._target = target
        self._sources = sources
        self._gcov = Gcov(sources, program=gcov)
        remote = f"{scratch}/hil-coverage-{secrets.token_hex(4)}"
        self._shell = "shell" in target.features
        self._files = TargetFiles(target, remote)
        self._kernel = KernelCounters(target, f"{remote}-kernel", tree=kernel_tree)
        self._kernel_counts: bool | None = None
        self._kernel_copies = 0
        self._went_back = False
        self._console = ConsoleDumps()
        self._before: dict[str, FileCoverage] = {}
        self._own = threading.local()
        self._lock = threading.RLock()
        self._notes: list[str] = []
        self._lost: list[CoverageError] = []
        self._directory: Path | None = None
        target.follower = self
        self.entered()

    # --- what the target tells ---

    def starting(self) -> Mapping[str, str]:
        if self._busy:
            return {}
        if self._went_back:
            # The kernel's counters are those of the snapshot, which were fetched before.
            self._went_back = False
            if self._kernel_counts:
                self._try("the kernel's counters", self._kernel.reset)
        return self._files.environment

    def ran(self) -> None:
        if not self._busy and self._directory is not None:
            self._try("what the last command counted", self._files.fetch)

    def leaving(self, how: str) -> None:
        # A cut of power is not waited for: what it interrupts is what a test wants to see.
        if how != "power" and self._directory is not None and not self._busy:
            self._fetch_all(how)
        if how == "close":
            self._console.settle()
            self._console.close()
            return
        with self._lock:
            self._console.restarted()
            self._went_back = self._went_back or how == "restore"

    def entered(self) -> None:
        self._console.listen(self._target.console)

    # --- what the test's end asks ---

    def begin(self, directory: Path) -> None:
        """A test begins: what is counted from here on is its own."""
        self._directory = directory
        self._kernel_copies = 0
        self._notes, self._lost = [], []
        self._files.begin(directory / "files")
        if self._shell:
            self._try("earlier counters", self._clear)

    def end(self, context: str) -> Found:
        """It has ended: everything fetched and counted, and written to the directory."""
        directory = self._directory
        if directory is None:
            return Found()
        if not self._target.closed:
            self._fetch_all("end")
            self._console.settle()
        self._directory = None
        with self._lock:
            found = self._count(directory)
        if found.files:
            directory.mkdir(parents=True, exist_ok=True)
            shard.write(directory / SHARD, [context], found.files)
        if found.problems or found.notes:
            directory.mkdir(parents=True, exist_ok=True)
            said = [("problem", str(each)) for each in found.problems]
            said += [("note", text) for text in found.notes]
            with (directory / PROBLEMS).open("w", encoding="ascii") as out:
                for kind, text in said:
                    out.write(json.dumps({"kind": kind, "test": context, "text": text}) + "\n")
        return found

    # --- how ---

    @property
    def _busy(self) -> bool:
        return getattr(self._own, "busy", False)

    @contextmanager
    def _as_own(self) -> Iterator[None]:
        """Commands in here are ours."""
        with self._lock:
            before, self._own.busy = self._busy, True
            try:
                yield
            finally:
                self._own.busy = before

    def _try(self, what: str, do: Callable[[], object]) -> bool:
        try:
            with self._as_own():
                do()
        except (HilError, OSError) as error:
            text = f"{what} could not be fetched: {str(error)[:_LONGEST]}"
            if isinstance(error, _GONE):
                self._notes.append(text)
            else:
                self._lost.append(CoverageError(text))
            return False
        return True

    def _clear(self) -> None:
        self._files.clear()
        if self._kernel_counts is None:
            self._kernel_counts = self._kernel.there()
        if self._kernel_counts:
            self._kernel.reset()

    def _fetch_all(self, how: str) -> None:
        if not self._shell or self._directory is None or self._target.died() is not None:
            return
        if not self._try(f"what was counted before the {how}", self._files.fetch):
            return
        if self._kernel_counts:
            into = self._directory / "kernel" / str(self._kernel_copies)
            self._kernel_copies += 1
            self._try(f"the kernel's counters before the {how}", lambda: self._kernel.fetch(into))
        if how == "close":
            self._try("the target's own files", self._files.remove)

    def _count(self, directory: Path) -> Found:
        found = Found(problems=[*self._lost], notes=self._notes)
        parts = [self._gcov.read(self._files.counters())]
        parts.append(self._of_kernel(directory / "kernel"))
        try:
            parts.append(python.read(self._files.python(), self._sources))
        except ToolMissing as error:
            found.problems.append(CoverageError(error.message, mend=error.mend))
        boots, problems = self._console.take()
        parts += self._of_boots(boots, directory)
        found.problems += [*self._files.problems, *problems]
        by_path: dict[str, list[FileCoverage]] = {}
        for part in parts:
            found.problems += part.problems
            for file in part.files:
                by_path.setdefault(file.path, []).append(file)
        found.files = [merge_file(files) for _, files in sorted(by_path.items())]
        return found

    def _of_kernel(self, copies: Path) -> Read:
        """All of a kernel may count, over a thousand files: what is no source of ours is left."""
        every = [one for copy in sorted(copies.glob("*")) for one in kernel.counters(copy)]
        mine = [one for one in every if self._sources.has(one.built)]
        read = self._gcov.read(mine)
        if every and not mine:
            what = f"none of the kernel's {len(every)} counters is of a file of --hil-cov: they are"
            read.problems.append(
                CoverageError(
                    f"{what} such as {every[0].built}",
                    mend="if it was built elsewhere (make O=DIR), hil_cov_map = DIR=SOURCE",
                )
            )
        return read

    def _of_boots(self, boots: list[dict[str, bytes]], directory: Path) -> Iterator[Read]:
        """Counters of firmware go on from test to test: each test has what came in its time."""
        for number, files in enumerate(boots):
            read = self._gcov.read(keep(files, directory / "console" / str(number)))
            if number == 0 and self._before:
                before, now = self._before, read.files
                read = Read(
                    [subtract(file, before.get(file.path, FileCoverage(""))) for file in now],
                    read.problems,
                )
            else:
                now = read.files
            if number == len(boots) - 1:
                self._before = {file.path: file for file in now}
            yield read
