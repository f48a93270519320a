"""The power switch of a rig: one Tasmota device over HTTP with a relay for each board.

The commands and answers are Tasmota's own (https://tasmota.github.io/docs/Commands/, and
CmndPower in its support_command.ino): ``/cm?cmnd=Power3%20On``. Faults of the boards are set
beside it, at ``/fault?board=3&kind=garbage&count=100``; ``/boards`` says how they are.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from pytest_hil.errors import ConfigError, HilError, nearest
from pytest_hil.rig.board import RigBoard

_POWER = re.compile(r"power(\d*)(?:\s+(\S+))?", re.IGNORECASE)
_ON = frozenset({"1", "on", "true"})
_OFF = frozenset({"0", "off", "false"})
_TOGGLE = frozenset({"2", "toggle"})


class Switchboard:
    """An HTTP server on 127.0.0.1, in threads of its own. A context manager."""

    def __init__(self, boards: Sequence[RigBoard]) -> None:
        self.boards = tuple(boards)
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="hil-rig-power", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        # Not serve_forever, which looks twice a second whether it is to end.
        while not self._closed:
            self._server.handle_request()

    def board(self, which: str) -> RigBoard:
        """By its number or its name. Raises ConfigError."""
        for board in self.boards:
            if which in (str(board.number), board.name):
                return board
        names = [board.name for board in self.boards]
        raise ConfigError("board", f"there is no {which!r}", mend=nearest(which, names))

    def table(self, board: RigBoard) -> dict[str, object]:
        """What switches this board, for boards.toml."""
        return {"driver": "tasmota", "url": self.url, "relay": board.number}

    def command(self, text: str) -> dict[str, Any]:
        """What Tasmota answers to a command."""
        match = _POWER.fullmatch(text.strip())
        if match is None:
            return self._status(text.strip())
        # Power without a number is the first; Power0 is all of them.
        number = int(match[1] or 1)
        if number > len(self.boards):
            return {"Command": "Error"}
        chosen = self.boards if number == 0 else (self.boards[number - 1],)
        word = (match[2] or "").lower()
        for board in chosen:
            if word in _TOGGLE:
                board.power(not board.relay)
            elif word in _ON | _OFF:
                board.power(word in _ON)
        return {self._key(board): _word(board) for board in chosen}

    def _key(self, board: RigBoard) -> str:
        return "POWER" if len(self.boards) == 1 else f"POWER{board.number}"

    def _status(self, text: str) -> dict[str, Any]:
        name = "pytest-hil rig"
        match text.lower().split():
            case ["state"]:
                return {self._key(board): _word(board) for board in self.boards}
            case ["status", *rest] if rest in ([], ["0"]):
                bits = sum(board.relay << (board.number - 1) for board in self.boards)
                return {
                    "Status": {
                        "Module": 0,
                        "DeviceName": name,
                        "FriendlyName": [board.name for board in self.boards],
                        "Power": str(bits),
                    }
                }
            case ["devicename"]:
                return {"DeviceName": name}
        return {"Command": "Unknown"}

    def close(self) -> None:
        """Nobody can switch any more. May be called twice."""
        if self._closed:
            return
        self._closed = True
        # Who waits for a connection is woken up by this.
        self._server.socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.server_close()

    def __enter__(self) -> Switchboard:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _word(board: RigBoard) -> str:
    return "ON" if board.relay else "OFF"


class _Server(ThreadingHTTPServer):
    """Its threads end with their requests; none may keep the process alive."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, switchboard: Switchboard) -> None:
        self.switchboard = switchboard
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    server_version = "Tasmota/13.4.0"
    sys_version = ""
    # Seconds; who connects and says nothing is let go.
    timeout = 10

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        pages: dict[str, Callable[[dict[str, str]], Any]] = {
            "/cm": self._cm,
            "/fault": self._fault,
            "/boards": self._boards,
        }
        page = pages.get(parts.path)
        if page is None:
            self._answer(404, {"error": f"there is no {parts.path}", "known": list(pages)})
            return
        try:
            self._answer(200, page(query))
        except ConfigError as error:
            self._answer(400, {"error": str(error)})
        except (HilError, OSError) as error:
            self._answer(500, {"error": str(error)})

    do_POST = do_GET

    def _cm(self, query: dict[str, str]) -> dict[str, Any]:
        return self.server.switchboard.command(query.get("cmnd", ""))

    def _fault(self, query: dict[str, str]) -> dict[str, Any]:
        board = self.server.switchboard.board(query.pop("board", ""))
        kind = query.pop("kind", "")
        options = {}
        for name, text in query.items():
            try:
                options[name] = float(text)
            except ValueError:
                raise ConfigError(f"fault {name}", f"{text!r} is no number") from None
        board.fault(kind, **options)
        return {"board": board.name, "fault": kind}

    def _boards(self, _query: dict[str, str]) -> list[dict[str, Any]]:
        return [
            {
                "name": board.name,
                "number": board.number,
                "kind": board.kind,
                "relay": board.relay,
                "powered": board.powered,
                "console": board.outside.console,
                "events": [asdict(event) for event in board.record.events],
            }
            for board in self.server.switchboard.boards
        ]

    def _answer(self, status: int, value: object) -> None:
        body = json.dumps(value, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on stderr: the boards' records have what happened."""
