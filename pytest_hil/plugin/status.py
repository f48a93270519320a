"""What is being done now, on its way from where it is done to the terminal.

In pytest's own process to the display; in an xdist worker through the link to the controller's.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from pytest_hil.plugin.items import worker_id

if TYPE_CHECKING:
    from pytest_hil.plugin.link import Listener, Message, Sender

# The name of the controller's socket, in what xdist gives its workers.
LINK = "hil_link"


class Sink(Protocol):
    """Where a process's status goes."""

    def progress(self, line: str) -> None:
        """What is being done now; "": nothing that takes long any more."""

    def say(self, line: str) -> None:
        """What the user should know, once."""

    def close(self) -> None:
        """Nothing more will come."""


class Status:
    """What this process tells of what it does."""

    def __init__(self, sink: Sink | None) -> None:
        self._sink = sink
        self._phases = 0

    @property
    def in_phase(self) -> bool:
        """Whether something is under way that tells of itself."""
        return self._phases > 0

    def progress(self, line: str) -> None:
        if self._sink is not None and line:
            self._sink.progress(line)

    def say(self, line: str) -> None:
        if self._sink is not None:
            self._sink.say(line)

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Something that may take long; at its end there is nothing to be shown of it."""
        self._phases += 1
        try:
            yield
        finally:
            self._phases -= 1
            self.progress_over()

    def progress_over(self) -> None:
        """Nothing takes long any more."""
        if self._sink is not None:
            self._sink.progress("")

    def close(self) -> None:
        if self._sink is not None:
            self._sink.close()


class _Linked:
    """A worker's sink."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender

    def progress(self, line: str) -> None:
        self._sender.send("status", line)

    def say(self, line: str) -> None:
        self._sender.send("say", line)

    def close(self) -> None:
        self._sender.close()


class Terminal:
    """The sink of the process that has the terminal; with xdist the workers' too."""

    def __init__(self, config: pytest.Config, fd: int) -> None:
        from pytest_hil.plugin.display import Display

        self._fd = fd
        self._config = config
        self.listener: Listener | None = None
        # What was said, once however many workers say it; in order.
        self.notes: dict[str, None] = {}
        # How many of them the summary has shown.
        self.shown = 0
        # Where pytest's writer stood when a plain line was last written past it.
        self._broken = 0
        self.live = os.isatty(fd) and os.environ.get("TERM") != "dumb"
        self.display = Display(self._write, self, live=self.live)

    def listen(self) -> str:
        """Take what xdist's workers say from now on; the name for them to say it to."""
        if self.listener is None:
            from pytest_hil.plugin.link import Listener

            self.listener = Listener(self._heard)
        return self.listener.name

    def _heard(self, message: Message) -> None:
        if message.kind == "say":
            self.say(message.text)
        else:
            self.display.status(message.worker, message.text)

    def progress(self, line: str) -> None:
        self.display.status("", line)

    def say(self, line: str) -> None:
        self.notes[line] = None

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.display.close()
        writer = self._config.get_terminal_writer()
        for note in list(self.notes)[self.shown :]:
            writer.line(f"hil: {note}")

    def _write(self, text: str) -> None:
        data = memoryview(text.encode(errors="replace"))
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError:
            pass  # the terminal is gone, and pytest will notice

    # What the display asks about pytest's own reporter

    def column(self) -> int:
        return self._config.get_terminal_writer().width_of_current_line

    def collected(self) -> int:
        """How many tests there are to run, of all workers; 0 as long as nobody knows."""
        from pytest_hil.plugin.results import collected

        return collected(self._config)

    def width(self) -> int:
        return self._config.get_terminal_writer().fullwidth

    def break_line(self) -> tuple[str, str]:
        if self.listener is not None:
            # The controller captures nothing: its writer writes to the terminal.
            writer = self._config.get_terminal_writer()
            if writer.width_of_current_line:
                writer.line()
                writer.flush()
            return "", "\n"
        if self._config.getoption("verbose", default=0) > 0:
            # A line of its own for each test: pytest begins it anew where it has none.
            reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
            reporter.currentfspath = None
            return "\n", ""
        # Pytest's writer may be captured now, and does not know what is written past it: where it
        # stands as it stood after our last line, nothing has come since.
        column = self.column()
        before = "\n" if column and column != self._broken else ""
        self._broken = column
        return before, "\n"


_STATUS = pytest.StashKey[Status]()
_TERMINAL = pytest.StashKey[Terminal]()
_FD = pytest.StashKey[int]()


def status_of(config: pytest.Config) -> Status:
    """Where this process tells what it does."""
    found = config.stash.get(_STATUS, None)
    if found is None:
        sink: Sink | None = _link(config) if worker_id(config) else terminal_of(config)
        found = config.stash[_STATUS] = Status(sink)
    return found


def terminal_of(config: pytest.Config) -> Terminal | None:
    """The terminal, in the process that has it and may use it."""
    found = config.stash.get(_TERMINAL, None)
    if found is None and _FD in config.stash:
        found = config.stash[_TERMINAL] = Terminal(config, config.stash[_FD])
        config.pluginmanager.register(_BesideTheReporter(found))
    return found


def _link(config: pytest.Config) -> Sink | None:
    from pytest_hil.plugin.link import Sender

    given: dict[str, str] = config.workerinput  # type: ignore[attr-defined]
    name = given.get(LINK)
    return None if name is None else _Linked(Sender(name, worker_id(config)))


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if worker_id(config) or config.getoption("verbose", default=0) < 0:
        return
    if config.pluginmanager.has_plugin("terminalreporter"):
        try:
            # Now nothing is captured yet: this is the terminal itself.
            config.stash[_FD] = os.dup(sys.stdout.fileno())
        except (OSError, ValueError, io.UnsupportedOperation):
            pass


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """What the user should know of how the tests ran stands at the end, where it is seen."""
    terminal = config.stash.get(_TERMINAL, None)
    if terminal is not None:
        notes = list(terminal.notes)
        terminal.shown = len(notes)
        for note in notes:
            terminalreporter.write_line(f"hil: {note}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    if _STATUS in config.stash:
        config.stash[_STATUS].close()
    elif _TERMINAL in config.stash:
        config.stash[_TERMINAL].close()
    if _FD in config.stash:
        os.close(config.stash[_FD])
        del config.stash[_FD]


class _BesideTheReporter:
    """Pytest's writing and ours take turns."""

    def __init__(self, terminal: Terminal) -> None:
        self._terminal = terminal

    def _paused(self) -> Generator[None, object, object]:
        with self._terminal.display.paused():
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        return (yield from self._paused())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        return (yield from self._paused())

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logfinish(self) -> Generator[None, object, object]:
        return (yield from self._paused())
