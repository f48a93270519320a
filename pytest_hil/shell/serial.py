"""Commands and files over a console: for targets that have nothing but a serial line.

What a command says goes into files on the target and comes back in checked frames, so neither the
kernel's messages in between nor a lost byte changes a result. See
:mod:`pytest_hil.shell.serial_script` for what runs there.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import itertools
import queue
import secrets
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from os import PathLike

from pytest_hil.console.session import Console
from pytest_hil.errors import (
    ChannelLost,
    CommandFailed,
    CommandTimeout,
    HilError,
    OutcomeUnknown,
    OutputTooLarge,
    TransferError,
)
from pytest_hil.shell import tar_transfer
from pytest_hil.shell.base import Completed
from pytest_hil.shell.cksum import cksum
from pytest_hil.shell.serial_frames import Frame, Frames
from pytest_hil.shell.serial_script import SCRIPT

# Seconds until a question is asked again, and until nobody is believed to be there.
_AGAIN, _PATIENCE = 2.0, 20.0
# How often it is asked whether a command has ended, should its own word of that be lost.
_STILL = 5.0
# Characters at once, to begin with: what a terminal's buffer holds while nobody reads
# (N_TTY_BUF_SIZE is 4096). Most drivers hold more: twice as many after each piece that came whole,
# half as many after one that did not.
_BLOCK, _LEAST, _MOST = 3000, 500, 12000
_PIECE = 48 * 1024
# Lines of base64, or of od without it; and how many are asked for again in one go.
_B64_LINE, _OD_LINE = 57, 16
_HEX = frozenset("0123456789abcdef ")


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
        self._ids = itertools.count(1)

    # --- its beginning ---

    def install(self) -> None:
        """Put our script on the target, which has just been logged in to.

        Raises ChannelLost when the shell there does not do what is needed.
        """
        with self._lock:
            talk = _Talk(self._console, self.name)
            try:
                for pause in (0.0, 0.05, 0.5):
                    directory = f"{self._where}/.hil-{talk.nonce}"
                    if talk.install(directory, pause):
                        self._directory = directory
                        return
            finally:
                talk.forget()
            raise ChannelLost(
                f"our script does not arrive whole on the console of {self.name}; its last lines:\n"
                f"{_indent(self._console.tail(8))}",
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
            talk.empty("c")
            talk.upload("c", script.encode())
            talk.empty("i")
            if input:
                talk.upload("i", input)
            began = time.monotonic()
            end = talk.run(next(self._ids), max_output + 1, timeout)
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
            if max(int(end.fields[3]), int(end.fields[5])) > max_output:
                raise OutputTooLarge(shown or script, limit=max_output)
            out, err = talk.output(end, max_output)
            code = int(end.fields[1])
            # A shell says 128 + N for the signal N.
            return (128 - code if 128 < code <= 128 + signal.NSIG else code), out, err, duration

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
    def _talk(self) -> Iterator[_Talk]:
        if not self._directory:
            self.install()
        talk = _Talk(self._console, self.name)
        try:
            talk.begin(self._directory)
            yield talk
        except (CommandTimeout, OutputTooLarge, TransferError):
            raise
        except HilError:
            self._directory = ""
            self._on_lost()
            raise
        finally:
            talk.end()


class _Talk:
    """One conversation with the script: from its start to the login shell's next prompt."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self.nonce = secrets.token_hex(4)
        self._frames = Frames(self.nonce)
        self._heard: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._unsubscribe = console.subscribe(self._hear)
        self._base64 = True
        self._sum = _cksum
        self._block = _BLOCK
        self._pieces = itertools.count(1)
        self._lines: dict[tuple[str, int], str] = {}

    def _hear(self, data: bytes) -> None:
        if not data:
            self._heard.put(None)
        for frame in self._frames.feed(data):
            self._heard.put(frame)

    def install(self, directory: str, pause: float) -> bool:
        """Type the script; whether it is there now. ``pause``: seconds after each line."""
        lines = [
            f"\x15 rm -rf {directory}; mkdir -m 700 {directory}; cd {directory}",
            " mkfifo f g; cat > h << 'END'",
            *SCRIPT.splitlines(),
            "END",
            " cd - > /dev/null",
        ]
        for line in lines:
            self._console.sendline(line)
            if pause:
                time.sleep(pause)
        # The nonce in two parts, so that the question's echo is no answer.
        start, end = self.nonce[:4], self.nonce[4:]
        sums = f"$(echo $( (cksum < {directory}/h || md5sum < {directory}/h) 2> /dev/null))"
        question = f' printf \'@%s%s I %s ~ I %s .\\n\' {start} {end} "{sums}" "{sums}"\n'
        right = _cksum(SCRIPT.encode()), _md5(SCRIPT.encode())
        return self._ask(question, "I").fields[:1] in [(one,) for one in right]

    def forget(self) -> None:
        """Nothing of this is in the way of the next expect()."""
        self._unsubscribe()
        self._console.skip(self._console.mark())

    def begin(self, directory: str) -> None:
        # Whatever stands on the line is forgotten (^U); the space keeps it out of the history.
        line = f"\x15 sh {directory}/h {self.nonce}\n"
        self._console.send(line)
        # Was its answer lost? It says again that it is there; a login shell does not mind.
        frame = self._wait("K", _AGAIN) or self._request("s", "N")
        self._base64 = frame.fields[:1] != ("od",)
        self._sum = _md5 if frame.fields[1:] == ("md5",) else _cksum

    def end(self) -> None:
        """Have the login shell back."""
        with contextlib.suppress(HilError):
            self._console.send("\n")
            self._wait("Q", _AGAIN)
        self.forget()

    def _send(self, text: str) -> None:
        self._console.send(f"{self.nonce} {text}\n")

    def _wait(self, kinds: str, timeout: float, first: str = "") -> Frame | None:
        """The next frame of one of these kinds; None when there is none in time.

        What was asked twice may be answered twice: ``first`` is its first field, if it matters.
        """
        until = time.monotonic() + timeout
        while (left := until - time.monotonic()) > 0:
            try:
                frame = self._heard.get(timeout=left)
            except queue.Empty:
                return None
            if frame is None:
                raise ChannelLost(f"the console of {self._name} ended")
            if frame.kind == "D" and len(frame.fields) >= 3:
                self._keep(frame)
            elif frame.kind in kinds and (not first or frame.fields[:1] == (first,)):
                return frame
        return None

    def _ask(self, line: str, kinds: str, first: str = "") -> Frame:
        """Send a line until it is answered."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            self._console.send(line)
            if frame := self._wait(kinds, _AGAIN, first):
                return frame
        raise ChannelLost(
            f"the shell on the console of {self._name} does not answer; the console's last lines:\n"
            f"{_indent(self._console.tail(8))}",
            mend="is it at its prompt, or does a program have the terminal?",
        )

    def _request(self, text: str, kinds: str, first: str = "") -> Frame:
        return self._ask(f"{self.nonce} {text}\n", kinds, first)

    # --- files of the script's ---

    def empty(self, name: str) -> None:
        self._request(f"t {name}", "T")

    def upload(self, name: str, data: bytes) -> None:
        """Append to a file there, in pieces that are checked."""
        for start in range(0, len(data), _PIECE):
            piece = data[start : start + _PIECE]
            for _ in range(5):
                if self._upload_piece(name, piece):
                    self._block = min(2 * self._block, _MOST)
                    break
                self._block = max(self._block // 2, _LEAST)
            else:
                raise TransferError(
                    f"the console of {self._name} loses what it is sent: five attempts at "
                    f"{len(piece)} bytes, none of them right",
                    mend="a slower line (baudrate), or flow control (rtscts)?",
                )

    def _upload_piece(self, name: str, piece: bytes) -> bool:
        if self._base64:
            text = base64.b64encode(piece).decode()
        else:
            text = "".join(f"\\{byte:03o}" for byte in piece)
        for count, start in enumerate(range(0, len(text), self._block), 1):
            block = text[start : start + self._block]
            self._send(f"u {len(block)}")
            self._console.send(block)
            if not self._has(count):
                self._fill(len(block))
                self._discard()
                return False
        return self._finish(name, piece)

    def _fill(self, most: int) -> None:
        """Bytes were lost, and it waits for them: others, until it answers. What is too much is
        noise to it."""
        for _ in range(0, most + _LEAST, _LEAST):
            self._console.send("A" * _LEAST + "\n")
            self._send("q")
            if self._wait("U", _AGAIN / 4):
                return

    def _has(self, count: int) -> bool:
        """Whether that many blocks are there: it says so, or says it again."""
        for _ in range(6):
            if self._wait("U", _AGAIN, str(count)):
                return True
            self._send("q")
        return False

    def _finish(self, name: str, piece: bytes) -> bool:
        number = str(next(self._pieces))
        text = f"f {self._sum(piece)} {len(piece)} {name} {number}"
        return self._request(text, "F", number).fields == (number, "1")

    def _discard(self) -> None:
        # With a checksum that is none: what was uploaded so far is forgotten.
        number = str(next(self._pieces))
        self._request(f"f x 0 i {number}", "F", number)

    # --- a command ---

    def run(self, number: int, most: int, timeout: float | None) -> Frame | None:
        """Its end; None when that has not come in time."""
        until = None if timeout is None else time.monotonic() + timeout
        self._send(f"r {number} {most}")
        silent = 0
        while True:
            left = _STILL if until is None else min(_STILL, until - time.monotonic())
            if left <= 0:
                return None
            if frame := self._wait("ERN", left):
                silent = 0
                if frame.kind == "E" and _is_end(frame):
                    return frame
                if frame.kind == "N":
                    self._send(f"r {number} {most}")
            elif left == _STILL:
                silent += 1
                if silent > _PATIENCE / _STILL:
                    raise OutcomeUnknown(
                        f"the console of {self._name} fell silent while a command ran; its last "
                        f"lines:\n{_indent(self._console.tail(8))}"
                    )
                self._send("s")

    def killed(self) -> Frame:
        """Kill it; its end."""
        for _ in range(5):
            self._send("k")
            frame = self._wait("E", _AGAIN)
            if frame is not None and _is_end(frame):
                return frame
            self._send("s")
        raise OutcomeUnknown(f"a command on {self._name} ran too long and could not be killed")

    def output(self, end: Frame, most: int) -> tuple[bytes, bytes]:
        """Both streams, whole."""
        _id, _code, out_sum, out_size, err_sum, err_size = end.fields
        out = self._stream("o", out_sum, int(out_size), most)
        return out, self._stream("e", err_sum, int(err_size), most)

    def _stream(self, name: str, right: str, size: int, most: int) -> bytes:
        if not size or size > most:
            return b""
        per_line = _B64_LINE if self._base64 else _OD_LINE
        last = -(-size // per_line)
        if size < 3000:
            self._wait_for_stream(name)  # it comes by itself
        for _ in range(8):
            for first, to in self._missing(name, last, per_line, size):
                self._send(f"o {name} {first} {to}")
                self._wait_for_stream(name)
            data = self._assembled(name, last, per_line, size)
            if data is not None and self._sum(data) == right:
                return data
            if data is not None:
                # Every line looks right, and one is not: all of them again.
                self._lines = {key: line for key, line in self._lines.items() if key[0] != name}
        raise ChannelLost(
            f"the console of {self._name} is too noisy: {self._frames.damaged} lines were damaged",
            mend="does something else write to it all the time?",
        )

    def _wait_for_stream(self, name: str) -> None:
        """Until it ends, or nothing of it has come for a while."""
        while True:
            before = len(self._lines)
            frame = self._wait("Z", _AGAIN)
            if frame is not None and frame.fields[:1] == (name,):
                return
            if frame is None and len(self._lines) == before:
                return

    def _keep(self, frame: Frame) -> None:
        name, number, *words = frame.fields
        if number.isdigit():
            self._lines[name, int(number)] = " ".join(words)

    def _missing(self, name: str, last: int, per_line: int, size: int) -> list[tuple[int, int]]:
        """Ranges of lines that are not here, or not right."""
        found: list[tuple[int, int]] = []
        for number in range(1, last + 1):
            wanted = per_line if number < last else size - (last - 1) * per_line
            line = self._decoded(self._lines.get((name, number), ""))
            if line is None or len(line) != wanted:
                if found and found[-1][1] == number - 1:
                    found[-1] = (found[-1][0], number)
                else:
                    found.append((number, number))
        return found

    def _assembled(self, name: str, last: int, per_line: int, size: int) -> bytes | None:
        if self._missing(name, last, per_line, size):
            return None
        parts = (self._decoded(self._lines[name, number]) for number in range(1, last + 1))
        return b"".join(part or b"" for part in parts)

    def _decoded(self, line: str) -> bytes | None:
        if self._base64:
            try:
                return base64.b64decode(line, validate=True)
            except (binascii.Error, ValueError):
                return None
        if not _HEX.issuperset(line):
            return None
        with contextlib.suppress(ValueError):
            return bytes.fromhex(line)
        return None


def _is_end(frame: Frame) -> bool:
    """With the six words that belong to it."""
    numbers = [frame.fields[place] for place in (0, 1, 3, 5)] if len(frame.fields) == 6 else ["?"]
    return all(one.isdigit() for one in numbers)


def _cksum(data: bytes) -> str:
    return str(cksum(data)) if data else "0"


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest() if data else "0"


def _indent(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
