"""What goes on while a test takes long: its target, for how long, the console's last line.

On a terminal after two seconds, and then each second; elsewhere once a minute, so that the log of a
CI that hangs says where.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator

import pytest

from pytest_hil.plugin import chosen, status
from pytest_hil.plugin.items import attempt_of, worker_id

# Seconds until a test is worth a word, and from one word to the next: on a terminal, elsewhere.
LIVE = (2.0, 1.0)
PLAIN = (60.0, 60.0)

# Whether the controller has a terminal, in what xdist gives its workers.
HAS_TERMINAL = "hil_live"

_TICKER = pytest.StashKey["Ticker"]()


class Ticker:
    """Tells of the test that runs, from a thread of its own that sleeps between tests."""

    def __init__(self, told: status.Status, patience: float, interval: float) -> None:
        self._status = told
        self._patience = patience
        self._interval = interval
        self._changed = threading.Condition()
        self._item: pytest.Item | None = None
        self._began = 0.0
        self._told = False
        self._over = False
        self._thread: threading.Thread | None = None

    def begin(self, item: pytest.Item) -> None:
        with self._changed:
            self._item, self._began = item, time.monotonic()
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="hil-live", daemon=True)
                self._thread.start()

    def end(self) -> None:
        with self._changed:
            self._item = None
            told, self._told = self._told, False
            self._changed.notify()
        if told:
            self._status.progress_over()

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        with self._changed:
            while not self._over:
                item = self._item
                if item is None:
                    self._changed.wait()
                    continue
                next_word = self._began + self._patience
                while self._item is item and not self._over:
                    left = next_word - time.monotonic()
                    if left > 0:
                        self._changed.wait(left)
                        continue
                    self._tell(item)
                    next_word = time.monotonic() + self._interval

    def _tell(self, item: pytest.Item) -> None:
        attempt = attempt_of(item)
        uses = [] if attempt is None else attempt.uses
        if not uses or self._status.in_phase:
            return  # what it waits for is being told of
        target = uses[0].target
        seconds = time.monotonic() - self._began
        said = target.console.tail(1).strip()
        name = item.nodeid.rpartition("/")[2]
        self._told = True
        self._status.progress(
            f"{target.name}: {name}, {seconds:.0f} s" + (f": {said}" if said else "")
        )


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    ticker = _ticker(item.config)
    if ticker is None:
        return (yield)
    ticker.begin(item)
    try:
        return (yield)
    finally:
        ticker.end()


def _ticker(config: pytest.Config) -> Ticker | None:
    if not chosen.names(config):
        return None
    found = config.stash.get(_TICKER, None)
    if found is None:
        live = has_terminal(config)
        found = config.stash[_TICKER] = Ticker(status.status_of(config), *(LIVE if live else PLAIN))
    return found


def has_terminal(config: pytest.Config) -> bool:
    """Whether somebody looks at what is told."""
    given: dict[str, str] = getattr(config, "workerinput", {})
    if worker_id(config):
        return bool(given.get(HAS_TERMINAL))
    terminal = status.terminal_of(config)
    return terminal is not None and terminal.live


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: object) -> None:
    config: pytest.Config = node.config  # type: ignore[attr-defined]
    if has_terminal(config):
        node.workerinput[HAS_TERMINAL] = "1"  # type: ignore[attr-defined]


class _Progress:
    """Counts the tests that have ended, for the line below the others."""

    def __init__(self, terminal: status.Terminal) -> None:
        self._terminal = terminal
        self._began = 0.0
        self._done = 0

    def pytest_runtest_logfinish(self) -> None:
        self._done += 1
        total = self._terminal.collected()
        if total:
            self._terminal.display.footer(self._text(total))

    def pytest_runtest_logstart(self) -> None:
        self._began = self._began or time.monotonic()

    def _text(self, total: int) -> str:
        text = f"{self._done} of {total} tests"
        left = total - self._done
        if self._done < 5 or left <= 0:
            return text
        return (
            f"{text}, about {duration((time.monotonic() - self._began) / self._done * left)} left"
        )


def duration(seconds: float) -> str:
    """Such as "40 s", "7 min", "2 h 5 min"."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    if worker_id(config) or not chosen.names(config) or not has_terminal(config):
        return
    terminal = status.terminal_of(config)
    if terminal is not None:
        config.pluginmanager.register(_Progress(terminal))


def pytest_sessionfinish(session: pytest.Session) -> None:
    if _TICKER in session.config.stash:
        session.config.stash[_TICKER].close()
