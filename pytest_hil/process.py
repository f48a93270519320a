"""The only place that starts, waits for and ends processes.

Every child dies with us, whatever kills us: it is started through ``setpriv
--pdeathsig KILL`` (util-linux). The kernel sends that signal when the *thread*
that made the child ends, not the process (prctl(2), PR_SET_PDEATHSIG), so all
children are made by one thread that lives as long as we do.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from pytest_hil.errors import ProcessFailed, ToolMissing

_spawner: ThreadPoolExecutor | None = None
_spawner_pid = 0
_spawner_lock = threading.Lock()


def find(tool: str, *, package: str = "", mend: str = "") -> str:
    """The absolute path of a program on PATH; ToolMissing with what to install if there is none."""
    found = shutil.which(tool)
    if found is None:
        raise ToolMissing(tool, package=package, mend=mend)
    return found


class Process:
    """A child process. A context manager; leaving it ends the child."""

    def __init__(self, popen: subprocess.Popen[bytes], argv: Sequence[str]) -> None:
        self._popen = popen
        self.argv = tuple(argv)
        self.pid = popen.pid

    @property
    def stdin(self) -> IO[bytes] | None:
        return self._popen.stdin

    @property
    def stdout(self) -> IO[bytes] | None:
        return self._popen.stdout

    @property
    def stderr(self) -> IO[bytes] | None:
        return self._popen.stderr

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, or None when it still runs after ``timeout`` seconds.

        Waits on a pidfd: :meth:`subprocess.Popen.wait` with a timeout polls.
        """
        if (
            timeout is not None
            and self._popen.poll() is None
            and not wait_for_pid(self.pid, timeout)
        ):
            return None
        return self._popen.wait()

    def kill(self) -> None:
        """SIGKILL, and do not wait."""
        if self._popen.poll() is None:
            self._popen.kill()

    def end(self, *, grace: float = 0.0) -> int | None:
        """End and reap it: SIGTERM and ``grace`` seconds first if there are any, then SIGKILL."""
        if self._popen.poll() is None and grace > 0:
            self._popen.terminate()
            self.wait(grace)
        self.kill()
        code = self._popen.wait()
        for stream in (self._popen.stdin, self._popen.stdout, self._popen.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        return code

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *exc: object) -> None:
        self.end()


def start(
    argv: Sequence[str],
    *,
    stdin: int | IO[Any] | None = subprocess.DEVNULL,
    stdout: int | IO[Any] | None = None,
    stderr: int | IO[Any] | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    pass_fds: Sequence[int] = (),
    new_group: bool = True,
    outlive: bool = False,
) -> Process:
    """Start a program; ``argv[0]`` is looked up on PATH.

    ``new_group`` keeps a Ctrl-C at the terminal from reaching the child: we
    decide when it ends. ``outlive`` is for the one case of a machine that the
    user starts to keep (``pytest-hil vm start``).
    """
    program = find(argv[0])
    command = [program, *argv[1:]]
    if not outlive:
        command = [find("setpriv", package="util-linux"), "--pdeathsig", "KILL", "--", *command]

    def make() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            cwd=cwd,
            env=None if env is None else dict(env),
            pass_fds=tuple(pass_fds),
            process_group=0 if new_group and not outlive else None,
            start_new_session=outlive,
        )

    made = _spawn_thread().submit(make)
    try:
        return Process(made.result(), argv)
    except BaseException:
        # Interrupted (Ctrl-C) while it was being made: nobody else knows of it.
        made.add_done_callback(_end_unclaimed)
        raise


def _end_unclaimed(made: Future[subprocess.Popen[bytes]]) -> None:
    if made.exception() is None:
        Process(made.result(), ()).end()


def run(
    argv: Sequence[str],
    *,
    timeout: float = 60.0,
    input: bytes | None = None,
    cwd: str | Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return what it said (bytes).

    Raises ProcessFailed with its output when it ends with an error (unless
    ``check`` is false) or does not end within ``timeout`` seconds.
    """
    child = start(
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=env,
        pass_fds=pass_fds,
    )
    with child:
        try:
            out, err = child._popen.communicate(input, timeout=timeout)
        except subprocess.TimeoutExpired as late:
            said = (late.stderr or b"") + (late.stdout or b"")
            raise ProcessFailed(
                argv, exit_code=None, output=said.decode(errors="replace"), timeout=timeout
            ) from None
    code = child._popen.returncode
    if check and code != 0:
        said = err if err.strip() else out
        raise ProcessFailed(argv, exit_code=code, output=said.decode(errors="replace"))
    return subprocess.CompletedProcess(list(argv), code, out, err)


def wait_for_pid(pid: int, timeout: float | None) -> bool:
    """Wait until a process (anybody's) has ended; False when it still lives after ``timeout`` s."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else max(0, timeout) * 1000))
    finally:
        os.close(fd)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none.

    With the pid it names a process for good: pids are reused, the pair is not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field is the name in brackets and may hold anything; count from its end.
    fields = stat[stat.rindex(b")") + 2 :].split()
    if fields[0] in (b"Z", b"X"):
        return None
    return int(fields[19])


def kill_pid(pid: int, *, started: int, timeout: float = 5.0) -> None:
    """SIGKILL a process of somebody who died, if it is still the one that ``started`` names."""
    if start_time(pid) != started:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    wait_for_pid(pid, max(0.0, deadline - time.monotonic()))


def _spawn_thread() -> ThreadPoolExecutor:
    """The one thread that makes children; a fork of ours gets its own."""
    global _spawner, _spawner_pid
    with _spawner_lock:
        if _spawner is None or _spawner_pid != os.getpid():
            _spawner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hil-spawn")
            _spawner_pid = os.getpid()
        return _spawner
