"""What commands ask of the servers of machines that were started by hand."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pytest_hil import process
from pytest_hil.cli.started import record, wire
from pytest_hil.cli.started.record import Record
from pytest_hil.console.interact import Left, interact
from pytest_hil.console.session import Console
from pytest_hil.console.transport import SocketTransport
from pytest_hil.errors import ChannelLost, ConfigError, HilError, MachineError
from pytest_hil.progress import Progress

_SERVER = "pytest_hil.cli.started.server"
_PATIENCE = 10.0


def start(asked: wire.Facts, *, progress: Progress, say: Callable[[str], None]) -> Record:
    """Start a server with a machine and wait until that is ready.

    ``asked``: ``name``, ``target``, ``overrides`` and ``settings``, plain values all. Raises
    ConfigError or MachineError with what the server said. Ending this ends the server too.
    """
    ours, theirs = socket.socketpair()
    with ours, contextlib.ExitStack() as unwanted:
        with theirs:
            server = process.start(
                [sys.executable, "-m", _SERVER, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                outlive=True,
            )
        unwanted.callback(server.end, grace=_PATIENCE)
        wire.send(ours, asked)
        while (message := wire.receive(ours)) is not None:
            facts, _ = message
            if "ready" in facts:
                unwanted.pop_all()
                return record.find(facts["ready"])
            if "error" in facts:
                raise _Said(facts["error"]) if facts["code"] == 1 else _Wrong(facts["error"])
            if "say" in facts:
                say(facts["say"])
            else:
                progress(facts["progress"])
        code = server.wait(_PATIENCE)
        raise MachineError(f"the machine's server ended by itself (exit code {code})")


class _Said(MachineError):
    """What went wrong in a server, in its own words: they end with what mends it."""


class _Wrong(ConfigError):
    """What was wrongly asked, in a server's words."""

    def __init__(self, text: str) -> None:
        HilError.__init__(self, text)
        self.where = ""


def live(name: str) -> Record:
    """The machine of that name, if it can be used. Raises ConfigError, MachineError."""
    found = record.find(name)
    if found.state == "died":
        raise MachineError(
            f"the machine {name} died: {found.why}", mend=f"`pytest-hil vm stop {name}` forgets it"
        )
    if found.state == "starting":
        raise MachineError(
            f"the machine {name} is not ready yet", mend="`pytest-hil vm list` says when it is"
        )
    return found


def run(
    machine: Record,
    command: str | Sequence[str],
    *,
    input: bytes | None,
    timeout: float | None,
    output: Callable[[str, bytes], None],
) -> int:
    """Run a command; ``output`` gets ("stdout" or "stderr", bytes). Its exit code, as a shell's.

    124: it was killed after ``timeout`` seconds; 125: it could not be run, or its end is unknown.
    """
    asked = {
        "verb": "run",
        "command": command if isinstance(command, str) else list(command),
        "timeout": timeout,
        "has_input": input is not None,
    }
    with _connected(machine) as sock:
        wire.send(sock, asked, input or b"")
        while True:
            facts, data = _next(machine, sock)
            if "stream" in facts:
                output(facts["stream"], data)
            elif "exit" in facts:
                code = int(facts["exit"])
                return code if code >= 0 else 128 - code
            else:
                output("stderr", f"pytest-hil: {facts['error']}\n".encode())
                return int(facts["code"])


def copy(machine: Record, verb: str, *, local: str, remote: str) -> None:
    """``put`` or ``get`` a file or a directory; ``local`` is an absolute path."""
    with _connected(machine) as sock:
        wire.send(sock, {"verb": verb, "local": local, "remote": remote})
        _done(machine, sock)


def console(machine: Record, stdin_fd: int, stdout_fd: int) -> Left:
    """Connect a terminal to its console until one of them ends; which."""
    with _connected(machine) as sock:
        wire.send(sock, {"verb": "console"})
        history = _done(machine, sock)
        with Console(SocketTransport(sock), name=machine.name, history=history) as here:
            return interact(here, stdin_fd, stdout_fd)


def stop(machine: Record) -> None:
    """End a machine and its server, and forget it, whatever state they are in."""
    if machine.alive and machine.started is not None:
        # A server that cannot be asked, or does not obey, is killed; QEMU dies with it.
        with contextlib.suppress(HilError, OSError), _connected(machine) as sock:
            sock.settimeout(_PATIENCE)
            wire.send(sock, {"verb": "stop"})
            wire.receive(sock)
            process.wait_for_pid(machine.pid, _PATIENCE)
        process.kill_pid(machine.pid, started=machine.started)
    record.forget(machine)


@contextlib.contextmanager
def _connected(machine: Record) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            with record.socket_path(machine) as path:
                sock.connect(path)
        except OSError as error:
            raise ended(machine) from error
        yield sock


def _done(machine: Record, sock: socket.socket) -> bytes:
    facts, data = _next(machine, sock)
    if "error" in facts:
        raise _Said(facts["error"])
    return data


def _next(machine: Record, sock: socket.socket) -> tuple[dict[str, Any], bytes]:
    try:
        message = wire.receive(sock)
    except (OSError, ChannelLost) as error:
        raise ended(machine) from error
    if message is None:
        raise ended(machine)
    return message


def ended(machine: Record) -> MachineError:
    """Why a machine whose server went away is gone."""
    # Its connections end a moment before it writes down why.
    process.wait_for_pid(machine.pid, _PATIENCE)
    now = next((one for one in record.records() if one.name == machine.name), None)
    if now is None:
        return MachineError(f"the machine {machine.name} was stopped")
    if now.why:
        return MachineError(f"the machine {machine.name} died: {now.why}")
    return MachineError(
        f"the server of the machine {machine.name} does not answer",
        mend=f"`pytest-hil vm stop {machine.name}` ends it",
    )
