"""A real labgrid on loopback: coordinator, exporter and client, from their package."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import select
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pytest_hil.cache import Cache
from pytest_hil.lab.labgrid_session import Session
from pytest_hil.rig.board import RigBoard
from tests.benchmarks.peer import environment

# Seconds: for what takes one on a quiet host.
PATIENCE = 60.0


class Labgrid:
    """A coordinator, and what exports to it. A context manager."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._python = environment(Cache.default(), lambda _text: None) / "bin" / "python"
        self._coordinator: subprocess.Popen[str] | None = None
        self._exporters: list[subprocess.Popen[str]] = []
        self.address = "127.0.0.1:0"
        self.start()

    def start(self) -> None:
        """The coordinator; again where it was, if it was there before."""
        self._coordinator = child = self._run("coordinator", "-l", self.address)
        assert child.stdout is not None
        for line in child.stdout:
            if line.startswith("listening on "):
                self.address = line.removeprefix("listening on ").strip()
                break
        else:
            raise AssertionError("the coordinator ended")
        # It goes on talking, and nobody should have to read it.
        threading.Thread(target=child.stdout.read, daemon=True).start()

    def stop(self) -> None:
        """Kill the coordinator."""
        assert self._coordinator is not None
        self._coordinator.kill()
        self._coordinator.wait()

    def pause(self, stopped: bool) -> None:
        """The coordinator is there and says nothing."""
        assert self._coordinator is not None
        self._coordinator.send_signal(19 if stopped else 18)

    def export(self, name: str, groups: Mapping[str, Mapping[str, object]]) -> None:
        """Start an exporter; returns when its resources are known to the coordinator."""
        path = self.root / f"{name}.yaml"
        path.write_text(json.dumps(groups))  # JSON is YAML
        words = ("-c", self.address, "--name", name, "--hostname", "127.0.0.1", str(path))
        child = self._run("exporter", *words)
        assert child.stdout is not None
        threading.Thread(target=child.stdout.read, daemon=True).start()
        self._exporters.append(child)
        number = sum(map(len, groups.values()))
        with self.session() as session:
            wait(session, lambda: _count(session, name) == number)

    def client(self, *words: str) -> str:
        """labgrid-client's output."""
        done = subprocess.run(
            self.command(*words),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def command(self, *words: str) -> list[str]:
        """labgrid-client's. An environment in the cache was moved there: its scripts do not run."""
        return [str(self._python), "-m", "labgrid.remote.client", "-x", self.address, *words]

    def place(self, name: str, *matches: str, tags: Sequence[str] = ()) -> None:
        """Make a place with labgrid's own client."""
        self.client("-p", name, "create")
        for match in matches:
            self.client("-p", name, "add-match", match)
        if tags:
            self.client("-p", name, "set-tags", *tags)

    @contextlib.contextmanager
    def session(self, name: str = "test/looks-on") -> Iterator[Session]:
        session = Session(self.address, name)
        try:
            yield session
        finally:
            session.close()

    def held(self) -> dict[str, str]:
        """Place → who has it."""
        with self.session() as session:
            return {one.name: one.acquired for one in session.places_now() if one.acquired}

    def reserved(self) -> list[str]:
        """Who has reserved something."""
        with self.session() as session:
            return [one.owner for one in session.reservations()]

    def _run(self, program: str, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(self._python), "-m", f"labgrid.remote.{program}", *words],
            cwd=self.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    def __enter__(self) -> Labgrid:
        return self

    def __exit__(self, *exc: object) -> None:
        for child in [*self._exporters, self._coordinator]:
            if child is not None:
                child.terminate()
        for child in [*self._exporters, self._coordinator]:
            if child is not None:
                try:
                    child.wait(15)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()


def _count(session: Session, exporter: str) -> int:
    return sum(one.exporter == exporter for one in session.resources.values())


def wait(session: Session, until: Callable[[], bool]) -> None:
    """Until something is so at a coordinator."""
    deadline = time.monotonic() + PATIENCE
    while not until():
        left = deadline - time.monotonic()
        assert left > 0, "it did not come to that"
        assert session.broken is None
        select.select([session], [], [], left)
        session.quiet()


class Relays:
    """A power switch as labgrid's model simplerest has it: ``/relay/INDEX/VALUE`` by GET."""

    def __init__(self, boards: Sequence[RigBoard]) -> None:
        by_number = {str(board.number): board for board in boards}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                _, _, number, *value = self.path.split("/")
                board = by_number[number]
                if value:
                    board.power(value[0] == "1")
                body = str(int(board.relay)).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/relay/{{index}}/{{value}}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def __enter__(self) -> Relays:
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
