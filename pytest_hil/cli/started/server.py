"""The process that owns a machine started by hand: ``python -m …server FD``.

It reads what to start from the socket FD, says on it how that goes, and then serves whoever
connects to the socket in its record's directory, until it is told to stop (the verb, or SIGTERM)
or the machine ends. Killed, it leaves no QEMU: that dies with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import NoReturn

from pytest_hil.bench import Bench
from pytest_hil.cli import choice
from pytest_hil.cli.started import record, wire
from pytest_hil.cli.started.record import Record
from pytest_hil.cli.started.serve import serve
from pytest_hil.errors import ConfigError, HilError
from pytest_hil.qemu.guest import Guest

_LAST_LINES = 20
_LAST_WORDS = 2.0


def main(argv: list[str]) -> int:
    """Start one machine and keep it; the exit code is for nobody."""
    starter = socket.socket(fileno=int(argv[1]))
    asked = wire.receive(starter)
    if asked is None:
        return 1
    signal.signal(signal.SIGTERM, _leave)
    # A terminal that is closed, or a Ctrl-C in it, is not meant for us.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        _Server(starter, asked[0]).run()
    except HilError as error:
        code = 2 if isinstance(error, ConfigError) else 1
        _tell(starter, {"error": str(error), "code": code})
    except Exception:
        _tell(starter, {"error": traceback.format_exc(), "code": 1})
    return 0


class _Server:
    def __init__(self, starter: socket.socket, asked: wire.Facts) -> None:
        self._starter = starter
        self._asked = asked
        self._serving = False
        self._stop = os.eventfd(0, os.EFD_CLOEXEC)
        self._threads: list[threading.Thread] = []

    def run(self) -> None:
        threading.Thread(target=self._watch_starter, daemon=True).start()
        bench = Bench(
            choice.made(self._asked["settings"]),
            progress=lambda line: _tell(self._starter, {"progress": line}),
            say=lambda line: _tell(self._starter, {"say": line}),
        )
        # Before the name is taken: a typo must not push a died machine's record out.
        target = choice.target_of(bench, self._asked["target"], self._asked["overrides"])
        mine = record.claim(self._asked["name"], target.name)
        died = ""
        try:
            with bench, contextlib.ExitStack() as stack:
                _write_to(mine.directory / "log")
                listener = stack.enter_context(_listen(mine))
                guest = bench.open(target)
                mine = mine.write(state="ready", **_facts(guest))
                self._ready(mine)
                died = self._serve(guest, listener)
                if died:
                    mine = mine.write(
                        state="died", why=died, qemu=None, last=guest.console.tail(_LAST_LINES)
                    )
            self._say_goodbye()
        finally:
            if not died:
                record.forget(mine)

    def _watch_starter(self) -> None:
        """Who started us went away before the machine was there: nobody wants it."""
        with contextlib.suppress(OSError):
            self._starter.recv(1, socket.MSG_PEEK)
        if not self._serving:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _ready(self, mine: Record) -> None:
        self._serving = True
        _tell(self._starter, {"ready": mine.name})
        with contextlib.suppress(OSError):
            self._starter.shutdown(socket.SHUT_RDWR)
        # Whatever directory we were started in may be removed or unmounted.
        os.chdir("/")

    def _serve(self, guest: Guest, listener: socket.socket) -> str:
        """Until it is told to stop (""), or the machine has ended (why)."""
        qemu = os.pidfd_open(guest.machine.process.pid)
        poll = select.poll()
        for fd in (listener.fileno(), qemu, self._stop):
            poll.register(fd, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._stop in ready:
                    return ""
                if qemu in ready:
                    guest.console.wait_closed(_LAST_WORDS)
                    return str(guest.died() or "it was switched off")
                self._accept(guest, listener)
        finally:
            os.close(qemu)

    def _accept(self, guest: Guest, listener: socket.socket) -> None:
        connection, _ = listener.accept()
        self._threads = [one for one in self._threads if one.is_alive()]
        thread = threading.Thread(
            target=serve,
            args=(connection, guest, lambda: os.eventfd_write(self._stop, 1)),
            daemon=True,
        )
        self._threads.append(thread)
        thread.start()

    def _say_goodbye(self) -> None:
        """The machine is gone; let those who are connected hear its last words."""
        for thread in self._threads:
            thread.join(_LAST_WORDS)


def _facts(guest: Guest) -> wire.Facts:
    hardware = guest.machine.hardware
    return {
        "qemu": guest.machine.process.pid,
        "arch": guest.arch,
        "accel": hardware.accel,
        "memory": hardware.memory or 0,
        "origin": guest.origin_text,
        "forwards": tuple(guest.machine.forwarded_ports()) if hardware.forwards else (),
    }


def _listen(mine: Record) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    try:
        with record.socket_path(mine) as path:
            listener.bind(path)
        listener.listen(16)
    except BaseException:
        listener.close()
        raise
    return listener


def _write_to(log: Path) -> None:
    """Nobody reads our stderr any more, and a pipe of our starter's must not stay open."""
    fd = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def _tell(starter: socket.socket, facts: wire.Facts) -> None:
    with contextlib.suppress(OSError):
        wire.send(starter, facts)


def _leave(_number: int, _frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the tidying
    raise SystemExit(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
