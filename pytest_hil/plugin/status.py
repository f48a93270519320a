"""What is being done now, on its way from where it is done to the terminal.

In pytest's own process to the display; in an xdist worker through the link to the controller's.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest

from pytest_hil.plugin.display import Display
from pytest_hil.plugin.items import worker_id
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

    def progress(self, line: str) -> None:
        if self._sink is not None and line:
            self._sink.progress(line)

    def say(self, line: str) -> None:
        if self._sink is not None:
            self._sink.say(line)

    @contextmanager
    def phase(self) -> Iterator[None]:
        """Something that may take long; at its end there is nothing to be shown of it."""
        try:
            yield
        finally:
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
        self._fd = fd
        self._config = config
        self.listener: Listener | None = None
        live = os.isatty(fd) and os.environ.get("TERM") != "dumb"
        self.display = Display(self._write, self, live=live)

    def listen(self) -> str:
        """Take what xdist's workers say from now on; the name for them to say it to."""
        if self.listener is None:
            self.listener = Listener(self._heard)
        return self.listener.name

    def _heard(self, message: Message) -> None:
        if message.kind == "say":
            self.display.say(message.text)
        else:
            self.display.status(message.worker, message.text)

    def progress(self, line: str) -> None:
        self.display.status("", line)

    def say(self, line: str) -> None:
        self.display.say(line)

    def close(self) -> None:
        if self.listener is not None:
            self.listener.close()
            self.listener = None
        self.display.close()
        os.close(self._fd)

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
        # Pytest's writer may be captured now. It begins a line by itself where it has none.
        reporter: Any = self._config.pluginmanager.get_plugin("terminalreporter")
        reporter.currentfspath = None
        return "\n", ""


_STATUS = pytest.StashKey[Status]()
_TERMINAL = pytest.StashKey[Terminal]()
_SILENT = Status(None)


def status_of(config: pytest.Config) -> Status:
    return config.stash.get(_STATUS, _SILENT)


def terminal_of(config: pytest.Config) -> Terminal | None:
    """The terminal, in the process that has it."""
    return config.stash.get(_TERMINAL, None)


def pytest_configure(config: pytest.Config) -> None:
    if worker_id(config):
        given: dict[str, str] = config.workerinput  # type: ignore[attr-defined]
        if name := given.get(LINK):
            sender = Sender(name, worker_id(config))
            config.stash[_STATUS] = Status(_Linked(sender))
        return
    if config.option.verbose < 0 or not config.pluginmanager.has_plugin("terminalreporter"):
        return
    try:
        # Now nothing is captured yet: this is the terminal itself.
        fd = os.dup(sys.stdout.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):
        return
    terminal = config.stash[_TERMINAL] = Terminal(config, fd)
    config.stash[_STATUS] = Status(terminal)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    status_of(config).close()


def _paused(config: pytest.Config) -> Generator[None, object, object]:
    terminal = config.stash.get(_TERMINAL, None)
    if terminal is None:
        return (yield)
    with terminal.display.paused():
        return (yield)


class _BesideTheReporter:
    """Pytest's writing and ours take turns."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logstart(self) -> Generator[None, object, object]:
        return (yield from _paused(self._config))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logreport(self) -> Generator[None, object, object]:
        return (yield from _paused(self._config))

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_logfinish(self) -> Generator[None, object, object]:
        return (yield from _paused(self._config))


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = terminal_of(session.config)
    if terminal is not None:
        session.config.pluginmanager.register(_BesideTheReporter(session.config))
