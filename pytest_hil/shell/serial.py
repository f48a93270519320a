"""Commands and files over a console: for targets that have nothing but a serial line.

What a command says goes into files on the target and comes back in checked frames, so neither the
kernel's messages in between nor a lost byte changes a result. See
:mod:`pytest_hil.shell.serial_script` for what runs there.
"""

from __future__ import annotations

import contextlib
import itertools
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike

from pytest_hil.console.session import CURSOR_REPORT, Console
from pytest_hil.errors import (
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    Crashed,
    HilError,
    OutputTooLarge,
    TransferError,
)
from pytest_hil.shell import tar_transfer
from pytest_hil.shell.base import Completed
from pytest_hil.shell.serial_talk import Talk


class SerialShell:
    """A shell over a console at whose other end a login shell has its prompt.

    ``where`` is a directory on the target that can be written. Any thread may call, one at a time
    gets its turn. ``on_lost`` is told when the shell does not answer any more.
    """

    def __init__(
        self,
        console: Console,
        *,
        name: str,
        where: str = "/tmp",
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.name = name
        self._console = console
        self._where = where
        self._on_lost = on_lost
        self._lock = threading.RLock()
        self._directory = ""
        # Whether the login shell asks for the cursor: see Console.cursor_report.
        self._asks = False
        self._ids = itertools.count(1)

    # --- its beginning ---

    def install(self) -> None:
        """Put our script on the target, which has just been logged in to.

        Raises ChannelLost when the shell there does not do what is needed.
        """
        with self._lock:
            talk = Talk(self._console, self.name)
            try:
                for pause in (0.0, 0.05, 0.5):
                    directory = f"{self._where}/.hil-{talk.nonce}"
                    if talk.install(directory, pause):
                        self._directory = directory
                        return
            finally:
                talk.forget()
                self._asks = talk.asked
            raise ChannelLost(
                f"our script does not arrive whole on the console of {self.name}; "
                f"{talk.last_lines()}",
                mend="is it a POSIX shell, with cksum and mkfifo, and a slow enough line?",
            )

    def close(self) -> None:
        """Nothing of it is open between two commands."""

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
        body = tar_transfer.script(command, env=env, cwd=cwd)
        data = input.encode() if isinstance(input, str) else input or b""
        code, out, err, duration = self.raw(
            body, data, timeout=timeout, max_output=max_output, shown=shown
        )
        text, said = out.decode(errors="replace"), err.decode(errors="replace")
        if check and code:
            raise CommandFailed(shown, exit_code=code, stdout=text, stderr=said)
        return Completed(shown, text, said, code, duration)

    def raw(
        self,
        script: str,
        input: bytes = b"",
        *,
        timeout: float | None = 60.0,
        max_output: int = 64 * 2**20,
        shown: str = "",
    ) -> tuple[int, bytes, bytes, float]:
        """Exit code, standard output, standard error and seconds of a shell script's text."""
        with self._lock, self._talk() as talk:
            number = next(self._ids)
            request = talk.prepare(number, script.encode(), input, max_output + 1)
            began = time.monotonic()
            end = talk.run(request, timeout)
            duration = time.monotonic() - began
            if end is None:
                end = talk.killed()
                out, err = talk.output(end, max_output)
                raise CommandTimeout(
                    shown or script,
                    timeout=timeout or 0,
                    stdout=out.decode(errors="replace"),
                    stderr=err.decode(errors="replace"),
                )
            if max(end.out.size, end.err.size) > max_output:
                raise OutputTooLarge(shown or script, limit=max_output)
            out, err = talk.output(end, max_output)
            # A shell says 128 + N for the signal N.
            code = 128 - end.code if 128 < end.code <= 128 + signal.NSIG else end.code
            return code, out, err, duration

    # --- files ---

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
        # As long as a slow line takes: 2 kB/s.
        timeout = 60 + len(input) / 2000
        code, out, err, _ = self.raw(script, input, timeout=timeout, max_output=2**31)
        return code, out, err

    # --- the conversation ---

    @contextlib.contextmanager
    def _talk(self) -> Iterator[Talk]:
        if not self._directory:
            self.install()
        self._console.interruption.check()
        talk = Talk(self._console, self.name)
        leave = talk.end
        try:
            # The last command's end may have come before the question with the prompt after it.
            talk.begin(
                self._directory, CURSOR_REPORT if self._asks else self._console.cursor_report
            )
            yield talk
        except (CommandTimeout, OutputTooLarge, TransferError):
            raise
        except HilError as error:
            if isinstance(error, Crashed):
                leave = talk.forget  # nobody is there to say goodbye to
            self._directory = ""
            self._on_lost()
            raise
        finally:
            leave()
            self._asks |= talk.asked
