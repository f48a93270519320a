"""Running pytest on small test files of our own."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

# pytester forgets what a run in this process has imported, but not the names that its packages
# got by that: the next run would have two of a module. So all of it is here before the first.
import pytest_hil.plugin.display
import pytest_hil.plugin.known
import pytest_hil.qemu.factory
import pytest_hil.qemu.features
import pytest_hil.qemu.guest  # noqa: F401
from pytest_hil.cache import Cache

# Found out now: pytester gives each test another home.
CACHE = Cache.default().root
# What a run may take until it says or does what is waited for.
PATIENCE = 120.0
# Plugins that have nothing to do with ours cost each run a part of a second.
_OPTIONS = (
    *("-p", "no:cacheprovider", "-p", "no:hypothesispytest", "-p", "no:html"),
    *("-p", "no:metadata", "-p", "no:allure_pytest", "--rootdir=."),
)


class Inner:
    """One pytest in a process of its own, with a temporary directory of its own.

    All processes below it carry a mark in their environment, by which they are found.
    """

    def __init__(self, directory: Path, runtime: Path, cache: Path) -> None:
        self.directory = directory
        self.runtime = runtime
        self.cache = cache
        self._mark = f"HIL_TEST_RUN={uuid.uuid4().hex}"
        self._process: subprocess.Popen[bytes] | None = None
        self._text = b""
        self._news = threading.Condition()
        self._reader: threading.Thread | None = None

    def write(self, text: str, name: str = "test_inner.py") -> None:
        (self.directory / name).write_text(text)

    def start(self, *args: str, env: dict[str, str] | None = None) -> None:
        name, _, value = self._mark.partition("=")
        own = {name: value, "TMPDIR": str(self.runtime), "PYTEST_HIL_CACHE": str(self.cache)}
        self._text = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *_OPTIONS, *args],
            cwd=self.directory,
            env={**os.environ, **own, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while data := os.read(self._process.stdout.fileno(), 65536):
            with self._news:
                self._text += data
                self._news.notify_all()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def text(self) -> str:
        return self._text.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        """Until it has said something."""
        with self._news:
            assert self._news.wait_for(lambda: text in self.text, PATIENCE), self.text

    def signal(self, number: signal.Signals) -> None:
        """As the terminal does it: to the whole group. SIGKILL to pytest alone."""
        if number == signal.SIGKILL:
            os.kill(self.pid, number)
        else:
            os.killpg(self.pid, number)

    def finish(self) -> int:
        """Its exit code."""
        assert self._process is not None
        assert self._reader is not None
        code = self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        return code

    def run(self, *args: str, env: dict[str, str] | None = None) -> int:
        self.start(*args, env=env)
        return self.finish()

    def processes(self) -> list[str]:
        """The command lines of all that live of this run, but pytest's own resource."""
        return [line for _pid, line in self._marked()]

    def _marked(self) -> Iterator[tuple[int, str]]:
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if self._mark.encode() in (path / "environ").read_bytes().split(b"\0"):
                    line = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                    yield int(path.name), line.decode(errors="replace")

    def wait_until_all_are_gone(self, patience: float = PATIENCE) -> None:
        """Until no process of this run lives any more."""
        deadline = time.monotonic() + patience
        while found := list(self._marked()):
            assert time.monotonic() < deadline, found
            for pid, _line in found:
                with contextlib.suppress(OSError):
                    fd = os.pidfd_open(pid)
                    try:
                        wait_readable(fd, deadline - time.monotonic())
                    finally:
                        os.close(fd)

    def left(self) -> list[str]:
        """What it has left in its temporary directory, and in a cache of its own."""
        mine = self.runtime / f"pytest-hil-{os.getuid()}"
        found = [str(path) for path in mine.glob("*") if path.name != "machines"]
        found += [str(path) for path in (mine / "machines").glob("*.*")]
        if self.cache != Cache.default().root:  # there, others are at work too
            found += [str(path) for path in self.cache.glob("templates/.*")]
        return found

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()
        for pid, _line in self._marked():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_readable(fd: int, timeout: float) -> None:
    import select

    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll(max(0.0, timeout) * 1000)


@pytest.fixture
def inner(tmp_path: Path) -> Iterator[Inner]:
    """A pytest on real machines, with the user's cache."""
    yield from _inner(tmp_path, CACHE)


@pytest.fixture
def inner_without_templates(tmp_path: Path) -> Iterator[Inner]:
    """A pytest on real machines, with the user's images and no template yet."""
    own = tmp_path / "cache"
    own.mkdir()
    for kind in ("accel", "apt", "emulators", "image", "sums"):
        (CACHE / kind).mkdir(parents=True, exist_ok=True)
        (own / kind).symlink_to(CACHE / kind)
    yield from _inner(tmp_path, own)


def _inner(tmp_path: Path, cache: Path) -> Iterator[Inner]:
    for name in ("tests", "tmp"):
        (tmp_path / name).mkdir()
    made = Inner(tmp_path / "tests", tmp_path / "tmp", cache)
    yield made
    made.close()


@pytest.fixture(scope="session")
def cache_without_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which nothing is but what the installed QEMUs are."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def plain(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, cache_without_images: Path
) -> pytest.Pytester:
    """A pytest that starts no machine."""
    monkeypatch.setenv("PYTEST_HIL_CACHE", str(cache_without_images))
    monkeypatch.delenv("PYTEST_HIL_MEMORY_BUDGET", raising=False)
    # Hypothesis's plugin takes longer than all the rest.
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no:hypothesispytest")
    return pytester
