"""Commands and files over SSH, by OpenSSH's own client: the user's ~/.ssh/config counts.

One connection is kept open (ssh's master), and every command is a channel of it.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import IO

from pytest_hil import process
from pytest_hil.config.driver import count, key, path_key, seconds
from pytest_hil.config.values import text, texts
from pytest_hil.errors import (
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    OutcomeUnknown,
    OutputTooLarge,
)
from pytest_hil.shell import tar_transfer
from pytest_hil.shell.base import Completed

# ssh's own exit code when it is not the command's (ssh(1), EXIT STATUS).
_SSH_FAILED = 255
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class SshOptions:
    """Keys of a ``shell`` table with ``driver = "ssh"``."""

    host: str = key(text, help="its name or address, or a Host of ~/.ssh/config")
    port: int | None = key(count(1, 65535), default=None, help="if it is not ssh's own choice")
    user: str = key(text, default="root", help="who logs in, by a key: nobody is asked")
    identity: Path | None = path_key(default=None, help="the private key, if not ssh's own choice")
    known_hosts: Path | None = path_key(
        default=None, help="a file with the board's host key, if not the user's"
    )
    options: tuple[str, ...] = key(texts, default=(), help='more for ssh: ["-oCiphers=…"]')
    timeout: float = key(seconds, default=30.0, help="how long it may take to connect")


class SshShell:
    """A shell over SSH. Any thread may call. Connects when it is first used."""

    def __init__(self, options: SshOptions, *, name: str) -> None:
        self.name = name
        self._options = options
        self._lock = threading.Lock()
        self._master: process.Process | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._numbers = itertools.count(1)

    # --- the connection ---

    def connect(self) -> None:
        """Connect, if it is not connected. Raises ChannelLost, ToolMissing."""
        with self._lock:
            if self._master is not None and self._master.exit_code is None:
                return
            self._disconnect()
            # Short: a UNIX socket's path has 107 bytes.
            self._directory = tempfile.TemporaryDirectory(prefix="hil-ssh-")
            process.find("ssh", package="openssh-client")
            log = Path(self._directory.name, "log").open("wb")  # noqa: SIM115 - closed below
            with log:
                argv = [*self._argv(), "-M", "-N", "-oControlPersist=no", self._options.host]
                self._master = process.start(argv, stderr=log)
            self._wait_for_master()

    def _wait_for_master(self) -> None:
        assert self._master is not None
        assert self._directory is not None
        until = time.monotonic() + self._options.timeout
        while time.monotonic() < until:
            # ssh says nothing when it is there; its socket is.
            if Path(self._directory.name, "s").exists():
                return
            if self._master.wait(0.02) is not None:
                break
        said = Path(self._directory.name, "log").read_text(errors="replace").strip()
        self._disconnect()
        raise ChannelLost(
            f"no SSH connection to {self.name} ({self._options.host}): {said or 'no answer'}",
            mend=f"try it by hand: {shlex.join([*self._argv(socket=False), self._options.host])}",
        )

    def _argv(self, *, socket: bool = True) -> list[str]:
        own = self._options
        found = ["ssh", "-oBatchMode=yes", f"-oConnectTimeout={max(1, int(own.timeout))}"]
        if own.port is not None:
            found.append(f"-p{own.port}")
        if own.user:
            found.append(f"-l{own.user}")
        if own.identity is not None:
            found += ["-i", str(own.identity), "-oIdentitiesOnly=yes"]
        if own.known_hosts is not None:
            found.append(f"-oUserKnownHostsFile={own.known_hosts}")
        if socket and self._directory is not None:
            found.append(f"-oControlPath={self._directory.name}/s")
        return [*found, *own.options]

    def _disconnect(self) -> None:
        master, self._master = self._master, None
        if master is not None:
            master.end()
        directory, self._directory = self._directory, None
        if directory is not None:
            directory.cleanup()

    def close(self) -> None:
        """End the connection. May be called twice."""
        with self._lock:
            self._disconnect()

    # --- commands ---

    def run(
        self,
        command: str | Sequence[str],
        *,
        check: bool = True,
        timeout: float | None = 60.0,
        input: str | bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        max_output: int = 64 * 2**20,
    ) -> Completed:
        """See :meth:`pytest_hil.target.Target.run`."""
        shown = command if isinstance(command, str) else shlex.join(command)
        data = input.encode() if isinstance(input, str) else input or b""
        body = tar_transfer.script(command, env=env, cwd=cwd)
        code, out, err, duration = self._raw(body, data, timeout, max_output, shown)
        said, wrong = out.decode(errors="replace"), err.decode(errors="replace")
        if check and code:
            raise CommandFailed(shown, exit_code=code, stdout=said, stderr=wrong)
        return Completed(shown, said, wrong, code, duration)

    def put(
        self,
        local: str | PathLike[str],
        remote: str,
        *,
        mode: int | None = None,
        owner: tuple[int, int] | None = None,
    ) -> None:
        """See :meth:`pytest_hil.target.Target.put`."""
        tar_transfer.put(self._bytes, self.name, local, remote, mode=mode, owner=owner)

    def get(self, remote: str, local: str | PathLike[str]) -> None:
        """See :meth:`pytest_hil.target.Target.get`."""
        tar_transfer.get(self._bytes, self.name, remote, local)

    def _bytes(self, script: str, input: bytes) -> tuple[int, bytes, bytes]:
        code, out, err, _ = self._raw(script, input, None, 2**31, script)
        return code, out, err

    def _raw(
        self, script: str, data: bytes, timeout: float | None, most: int, shown: str
    ) -> tuple[int, bytes, bytes, float]:
        self.connect()
        group = f"/tmp/.hil-ssh-{os.getpid()}-{next(self._numbers)}"
        # A session of its own, to be killed as a whole: not every sshd makes one. What runs in the
        # background loses its input unless it is given it. The outer shell gives signals a number.
        inner = f'echo $$ > {group}; exec sh -c "$0"'
        words = (
            f"exec 3<&0; $(command -v setsid) sh -c {shlex.quote(inner)} {shlex.quote(script)} "
            f"<&3 3<&- & exec 3<&-; wait $!; r=$?; rm -f {group}; exit $r"
        )
        began = time.monotonic()
        child = process.start(
            [*self._argv(), self._options.host, words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with child:
            out, err = _Reader(child.stdout, most), _Reader(child.stderr, most)
            _Writer(child.stdin, data)
            code = self._wait(child, timeout, out, err)
            if code is None or out.too_much or err.too_much:
                self._kill(group)
                child.end()
            out.join()
            err.join()
        duration = time.monotonic() - began
        if out.too_much or err.too_much:
            raise OutputTooLarge(shown, limit=most)
        if code is None:
            raise CommandTimeout(shown, timeout=timeout or 0, stdout=out.text(), stderr=err.text())
        if code == _SSH_FAILED and not self._alive():
            raise OutcomeUnknown(
                f"the SSH connection to {self.name} ended while a command ran: {err.text().strip()}"
            )
        return (
            (128 - code if 128 < code <= 128 + signal.NSIG else code),
            out.data,
            err.data,
            duration,
        )

    def _wait(
        self, child: process.Process, timeout: float | None, out: _Reader, err: _Reader
    ) -> int | None:
        until = None if timeout is None else time.monotonic() + timeout
        while not (out.too_much or err.too_much):
            left = 0.2 if until is None else min(0.2, until - time.monotonic())
            if left <= 0:
                return None
            if (code := child.wait(left)) is not None:
                return code
        return None

    def _kill(self, group: str) -> None:
        """What the command has started, on the target."""
        line = f"kill -9 -$(cat {group}); rm -f {group}"
        with contextlib.suppress(Exception):
            process.run([*self._argv(), self._options.host, line], timeout=10, check=False)

    def _alive(self) -> bool:
        return self._master is not None and self._master.exit_code is None


class _Reader:
    """Reads a pipe to its end, but for what is too much."""

    def __init__(self, pipe: IO[bytes] | None, most: int) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._most = most
        self._parts: list[bytes] = []
        self._size = 0
        self.too_much = False
        self._thread = threading.Thread(target=self._read, name="hil-ssh", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._pipe.fileno(), _CHUNK):
                self._size += len(data)
                if self._size > self._most:
                    self.too_much = True
                else:
                    self._parts.append(data)

    def join(self) -> None:
        self._thread.join(10)

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)

    def text(self) -> str:
        return self.data.decode(errors="replace")


class _Writer:
    """Writes to a pipe, and closes it."""

    def __init__(self, pipe: IO[bytes] | None, data: bytes) -> None:
        assert pipe is not None
        self._pipe = pipe
        self._data = data
        threading.Thread(target=self._write, name="hil-ssh", daemon=True).start()

    def _write(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._pipe.write(self._data)
            self._pipe.flush()
        with contextlib.suppress(OSError, ValueError):
            self._pipe.close()
