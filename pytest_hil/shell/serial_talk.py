"""One conversation with the script on the target, from its start to the login shell's next prompt.

Whatever is lost on the way is asked for again; each request may be heard twice and does its work
once.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import secrets
import time
from functools import partial

from pytest_hil.console.session import CURSOR_ASKED, Console
from pytest_hil.errors import ChannelLost, HilError, OutcomeUnknown, TransferError
from pytest_hil.shell.serial_frames import Frame, Frames
from pytest_hil.shell.serial_output import Coding, End, Lines, Stream, parse_end
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
# A command's text that goes in its request, which says everything twice.
_SHORT = 1400
# The place of a frame that was damaged.
_DAMAGED = Frame("?", ())
# Something has happened that is not in the frames; see Interruption.
_NEWS = Frame("!", ())


class Talk:
    """Made before the script is started: it hears everything from then on."""

    def __init__(self, console: Console, name: str) -> None:
        self._console = console
        self._name = name
        self.nonce = secrets.token_hex(4)
        # Whether the login shell has asked where the cursor is.
        self.asked = bool(console.cursor_report)
        self._frames = Frames(self.nonce)
        self._heard: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
        self._unsubscribe = console.subscribe(self._hear)
        self._sleep = console.interruption.on_change(partial(self._heard.put, _NEWS))
        self._coding = Coding()
        self._block = _BLOCK
        self._pieces = itertools.count(1)
        self._lines = Lines()

    def _hear(self, data: bytes) -> None:
        if not data:
            self._heard.put(None)
        self.asked |= CURSOR_ASKED in data
        damaged = self._frames.damaged
        for frame in self._frames.feed(data):
            self._heard.put(frame)
        if self._frames.damaged > damaged:
            self._heard.put(_DAMAGED)

    # --- from its beginning to its end ---

    def install(self, directory: str, pause: float) -> bool:
        """Type the script; whether it is there now. ``pause``: seconds after each line."""
        lines = [
            f"\x15 rm -rf {directory}; mkdir -m 700 {directory}; cd {directory}",
            " mkfifo f g; cat > h << 'END'",
            *SCRIPT.splitlines(),
            "END",
            " cd - > /dev/null",
        ]
        self._console.send(self._console.cursor_report)
        # At once, if that is fast enough for it: a write a line is fifty of them.
        for text in [f"{line}\n" for line in lines] if pause else ["\n".join([*lines, ""])]:
            self._console.send(text)
            time.sleep(pause)
        # The nonce in two parts, so that the question's echo is no answer.
        start, end = self.nonce[:4], self.nonce[4:]
        sums = f"$( (cksum < {directory}/h || md5sum < {directory}/h) 2> /dev/null)"
        text = f"y=$(echo I {sums}); printf '@%s%s %s %s ~ %s .\\n'"
        question = f' ({text} {start} {end} ${{#y}} "$y" "$y")\n'
        right = [Coding(md5=md5).sum(SCRIPT.encode()) for md5 in (False, True)]
        return self._ask(question, "I").fields[:1] in [(one,) for one in right]

    def begin(self, directory: str, report: bytes) -> None:
        """Have the login shell start the script. ``report``: see :attr:`Console.cursor_report`."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            # Whatever stands on the line is forgotten (^U); the space keeps it out of the history.
            self._console.send(report + f"\x15 sh {directory}/h {self.nonce}\n".encode())
            frame = self._wait("K?", _AGAIN)
            if frame is None or frame is _DAMAGED:
                # Was its answer lost? It says again that it is there; a login shell does not mind.
                self._send("s")
                frame = self._wait("N", _AGAIN)
            if frame is not None:
                self._coding = Coding.of(frame)
                return
            # Or has the one of before not heard that it is to end?
            self._console.send("\n")
        raise self._silent()

    def end(self) -> None:
        """Have the login shell back."""
        with contextlib.suppress(HilError):
            self._console.send("\n")
            self._wait("Q?", _AGAIN)
        self.forget()

    def forget(self) -> None:
        """Nothing of this is in the way of the next expect()."""
        self._unsubscribe()
        self._sleep()
        self._console.skip(self._console.mark())

    # --- words ---

    def _send(self, text: str) -> None:
        self._console.send(self._line(text))

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
            if frame is _NEWS:
                self._console.interruption.check()
                continue
            if frame is None:
                raise ChannelLost(f"the console of {self._name} ended")
            if frame.kind == "D" and len(frame.fields) >= 3:
                self._lines.add(frame)
            elif frame.kind in kinds and (
                not first or frame is _DAMAGED or frame.fields[:1] == (first,)
            ):
                return frame
        return None

    def _ask(self, line: str, kinds: str, first: str = "") -> Frame:
        """Send a line until it is answered."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            self._console.send(line)
            frame = self._wait(kinds + "?", _AGAIN, first)
            if frame is not None and frame is not _DAMAGED:
                return frame
        raise self._silent()

    def _request(self, text: str, kinds: str, first: str = "") -> Frame:
        return self._ask(self._line(text), kinds, first)

    def _line(self, text: str) -> str:
        # Twice, and how long: of a row of equal letters each copy may lose one.
        return f"{self.nonce} {len(text)} {text} ~ {text}\n"

    def _silent(self) -> ChannelLost:
        return ChannelLost(
            f"the shell on the console of {self._name} does not answer; {self.last_lines()}",
            mend="is it at its prompt, or does a program have the terminal?",
        )

    def last_lines(self) -> str:
        """What the console said last, for an error."""
        lines = self._console.tail(8).splitlines()
        return "\n".join(["the console's last lines:", *(f"    {line}" for line in lines)])

    # --- files of the script's ---

    def empty(self, name: str) -> None:
        self._request(f"t {name}", "T", name)

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
        text = self._coding.encoded(piece)
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
            frame = self._wait("U?", _AGAIN, str(count))
            if frame is not None and frame is not _DAMAGED:
                return True
            self._send("q")
        return False

    def _finish(self, name: str, piece: bytes) -> bool:
        number = str(next(self._pieces))
        text = f"f {self._coding.sum(piece)} {len(piece)} {name} {number}"
        return self._request(text, "F", number).fields == (number, "1")

    def _discard(self) -> None:
        # With a checksum that is none: what was uploaded so far is forgotten.
        number = str(next(self._pieces))
        self._request(f"f x 0 i {number}", "F", number)

    # --- a command ---

    def prepare(self, number: int, script: bytes, input: bytes, most: int) -> str:
        """Have a command there; what runs it then. ``most`` bytes of each stream are kept."""
        text = escaped(script)
        if not input and len(text) <= _SHORT and b"\0" not in script:
            return f"x {number} {most} {text}"
        for name, data in (("c", script), ("i", input)):
            self.empty(name)
            self.upload(name, data)
        return f"r {number} {most}"

    def run(self, request: str, timeout: float | None) -> End | None:
        """The command's end; None when that has not come in time."""
        until = None if timeout is None else time.monotonic() + timeout
        self._send(request)
        silent = damaged = 0
        while True:
            left = _STILL if until is None else min(_STILL, until - time.monotonic())
            if left <= 0:
                return None
            if frame := self._wait("ERN?", left):
                silent = 0
                if frame.kind == "E" and (end := parse_end(frame, self._coding)):
                    return end
                if frame.kind == "N":
                    self._send(request)
                elif frame is _DAMAGED:
                    # A shorter frame has better chances.
                    damaged += 1
                    self._send("s" if damaged < 3 else "l")
            elif left == _STILL:
                silent += 1
                if silent > _PATIENCE / _STILL:
                    raise OutcomeUnknown(
                        f"the console of {self._name} fell silent while a command ran; "
                        f"{self.last_lines()}"
                    )
                self._send("s")

    def killed(self) -> End:
        """Kill it; its end."""
        for _ in range(5):
            self._send("k")
            frame = self._wait("E?", _AGAIN)
            if frame is not None and (end := parse_end(frame, self._coding)):
                return end
            self._send("l")
            frame = self._wait("E", _AGAIN)
            if frame is not None and (end := parse_end(frame, self._coding)):
                return end
        raise OutcomeUnknown(f"a command on {self._name} ran too long and could not be killed")

    def output(self, end: End, most: int) -> tuple[bytes, bytes]:
        """Both streams, whole; nothing of one that is longer than ``most``."""
        return self._fetched("o", end.out, most), self._fetched("e", end.err, most)

    def _fetched(self, name: str, stream: Stream, most: int) -> bytes:
        if stream.data is not None:
            return stream.data
        if stream.size > most:
            return b""
        if stream.size < 3000:
            self._wait_for_stream(name)  # it comes by itself
        for _ in range(8):
            for first, to in self._lines.missing(name, stream.size, self._coding):
                self._send(f"o {name} {first} {to}")
                self._wait_for_stream(name)
            data = self._lines.data(name, stream.size, self._coding)
            if data is not None and self._coding.sum(data) == stream.sum:
                return data
            if data is not None:
                # Every line looks right, and one is not: all of them again.
                self._lines.forget(name)
        raise ChannelLost(
            f"the console of {self._name} is too noisy: {self._frames.damaged} lines were damaged",
            mend="does something else write to it all the time?",
        )

    def _wait_for_stream(self, name: str) -> None:
        """Until it ends, or nothing of it has come for a while."""
        while True:
            before = len(self._lines)
            frame = self._wait("Z", _AGAIN, name)
            if frame is not None or len(self._lines) == before:
                return


def escaped(script: bytes) -> str:
    """One word, not empty, that printf(1) writes out as these bytes, whichever printf it is."""
    text = "".join(map(_escaped, script or b"\n"))
    return rf"\055{text[1:]}" if text.startswith("-") else text


def _escaped(byte: int) -> str:
    if byte == ord("%"):
        return "%%"
    return chr(byte) if 0x20 < byte < 0x7F and byte != ord("\\") else f"\\{byte:03o}"
