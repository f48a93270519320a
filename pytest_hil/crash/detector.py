"""Console bytes in, crashes out.

What is found does not depend on how the bytes are cut into pieces. The work is done line by
line only where the fast scan sees something, and while a report is open.
"""

from __future__ import annotations

import re

from pytest_hil.crash.crash import Crash, Severity
from pytest_hil.crash.line import LONGEST, Message, messages
from pytest_hil.crash.report import Report, continues, refines
from pytest_hil.crash.rule import Rule
from pytest_hil.crash.rules.resets import stage_of
from pytest_hil.crash.ruleset import Rules, known
from pytest_hil.crash.title import RULER

# Reports that can be open at the same time: one inside another, or of several processors.
_MOST_OPEN = 16
RESET = "reset"
CUT = "cut"
# Headers with their times, to know again what is only printed again (dmesg).
_MOST_KNOWN = 4096
_LONGEST_KEY = 200


class Detector:
    """Reads along what one console says.

    ``watch_resets``: whether a boot that is seen now was not asked for. Set it whenever that
    changes: before a reset that the test wants it is False, and True when the machine has booted.
    """

    def __init__(self, rules: Rules | None = None, *, watch_resets: bool = False) -> None:
        self.rules = known() if rules is None else rules
        self.watch_resets = watch_resets
        self._scanner = self.rules.scanner
        self._partial = b""
        self._offset = 0  # of _partial's beginning in the stream
        self._before = ""  # the line before, for reports that begin with a ruler
        self._open: list[Report] = []
        self._silences = 0  # one after another
        self._known: dict[tuple[str, str], None] = {}
        self._stage: int | None = None  # of the last boot loader's banner
        self._crashed: int | None = None  # where this boot's first grave crash began
        self._at: float | None = None
        self._found: list[Crash] = []

    def feed(self, data: bytes, at: float | None = None) -> list[Crash]:
        """The next bytes, and when they came; gives the crashes whose end is known by now."""
        self._at = at
        self._silences = 0
        block = self._partial + data
        cut = block.rfind(b"\n") + 1
        self._partial = block[cut:]
        if cut:
            self._lines(block[:cut])
        self._cut_partial()
        return self._take()

    @property
    def reading(self) -> bool:
        """Whether something has begun and not ended, so that silence says something."""
        return bool(self._open) or self._promising()

    def idle(self) -> list[Crash]:
        """Say that the console was silent, for about 0.3 seconds; again for each time it stays so.

        A report that is whole ends at the first silence, one that is not at the second.
        """
        self._silences += 1
        if self._silences > 1 and self.reading:
            self._flush()
        for report in list(self._open):
            if report.whole or self._silences > 1:
                self._close(report)
        return self._take()

    def restarted(self) -> None:
        """Say that the machine was started anew: what crashes from now on follows from nothing."""
        self._flush()
        while self._open:
            self._close(self._open[0])
        self._known.clear()
        self._crashed = None
        self._stage = None

    def finish(self) -> list[Crash]:
        """The console has ended."""
        self._flush()
        while self._open:
            self._close(self._open[0])
        return self._take()

    def _take(self) -> list[Crash]:
        found, self._found = self._found, []
        return found

    def _flush(self) -> None:
        """Take the line that has no end as it is."""
        partial, self._partial = self._partial, b""
        if partial:
            self._block(b"\n" + partial)

    def _promising(self) -> bool:
        """Whether a report may begin with the line that has no end yet."""
        line = b"\n" + self._partial + b"\n"
        if not self._partial or not any(True for _ in self._scanner.lines(line)):
            return False
        # The fast scan takes more for one than is: a prompt in colour, with rules of a user's.
        said = messages(self._partial, self._offset, self._at)
        return any(self._scanner.message(message.text) for message in said)

    def _cut_partial(self) -> None:
        """A line without an end is cut, always at the same places."""
        while len(self._partial) > LONGEST:
            piece, self._partial = self._partial[:LONGEST], self._partial[LONGEST:]
            self._block(b"\n" + piece)

    # --- blocks and lines ---

    def _lines(self, block: bytes) -> None:
        """Whole lines, of which the longest are cut like those that come byte by byte."""
        done = at = 0
        while at < len(block):
            ends = block.rfind(b"\n", at, at + LONGEST + 1) + 1
            if ends:
                at = ends
                continue
            if done < at:
                self._block(b"\n" + block[done:at])
            done = at + LONGEST
            self._block(b"\n" + block[at:done])
            at = done
        if done < at:
            self._block(b"\n" + (block[done:at] if done else block))

    def _block(self, block: bytes) -> None:
        """Lines of bearable length, after one newline that is not of them."""
        offset = self._offset - 1
        self._offset = offset + len(block)
        candidates = self._scanner.lines(block)
        at = 1
        while at < len(block):
            if not self._open:
                ahead = next((each for each in candidates if each >= at), None)
                if ahead is None:
                    self._remember(block, len(block))
                    return
                if ahead > at:
                    self._remember(block, ahead)
                at = ahead
            end = block.find(b"\n", at) + 1 or len(block)
            line = block[at:end]
            for message in messages(line, offset + at, self._at):
                self._message(message)
            self._before = _ruler(line)
            at = end

    def _remember(self, block: bytes, end: int) -> None:
        """The line that ends at a place is the one before the next."""
        self._before = _ruler(block[block.rfind(b"\n", 0, end - 1) + 1 : end])

    def _message(self, message: Message) -> None:
        report = self._context(message)
        header = self.rules.find(message.text)
        if header is not None and header[0].printk_only and not message.kernel:
            header = None
        if header is None:
            if report is not None:
                report.add(message)
        elif self._shown_again(header[0], message):
            if report is not None and report.rule.kind == CUT:
                self._open.remove(report)
        elif header[0].kind == RESET:
            self._banner(*header, message)
        elif report is not None and refines(header[0], report):
            report.refine(*header, message)
        elif report is not None and continues(header[0], report):
            report.go_on(*header, message)
        else:
            if report is not None and report.whole:
                self._close(report)
            elif report is not None:
                report.interrupted()
            self._begin(*header, message)
        for each in [each for each in self._open if each.over]:
            self._close(each)

    def _shown_again(self, rule: Rule, message: Message) -> bool:
        """Whether the kernel has said that before: dmesg shows it, or somebody who reads a log.

        Not by the text alone, and not while the clock stands still, at the beginning of a boot.
        """
        if not message.stamp or message.stamp.endswith(" 0.000000]") or rule.kind == CUT:
            return False
        key = (message.stamp, message.text[:_LONGEST_KEY])
        if key in self._known:
            return True
        self._known[key] = None
        if len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]
        return False

    def _context(self, message: Message) -> Report | None:
        """The report that a line is of: the last one of who said it.

        What is not the kernel's may be a program's, or the rest of a torn line of the kernel's.
        """
        for report in reversed(self._open):
            first = report.first
            if first.kernel == message.kernel and first.caller == message.caller:
                return report
        return self._open[-1] if self._open and not message.kernel else None

    def _begin(self, rule: Rule, found: re.Match[str], message: Message) -> None:
        report = Report(rule, found, message)
        if self._before:
            report.precede(self._before)
        self._open.append(report)
        if len(self._open) > _MOST_OPEN:
            self._close(self._open[0])

    def _banner(self, rule: Rule, found: re.Match[str], message: Message) -> None:
        """A boot, or the next stage of the one that is under way."""
        stage, self._stage = self._stage, stage_of(rule)
        if stage is not None and self._stage > stage:
            return
        while self._open:
            self._close(self._open[0])
        if self.watch_resets:
            self._begin(rule, found, message)
        self._known.clear()

    def _close(self, report: Report) -> None:
        self._open.remove(report)
        if not report.believed:
            return
        start = report.first.start
        before = self._crashed is not None and self._crashed < start
        before = before or any(each.grave and each.first.start < start for each in self._open)
        crash = report.crash(after_another=before)
        if self.rules.ignores(crash.title):
            return
        if crash.severity in (Severity.FATAL, Severity.ERROR):
            self._crashed = start if self._crashed is None else min(self._crashed, start)
        self._found.append(crash)


def _ruler(line: bytes) -> str:
    """A line if it is one that reports begin with, else ""."""
    if not line.rstrip().endswith((b"=====", b"*****", b"-----", b"[0m")):
        return ""
    last = list(messages(line, 0, None))[-1]
    return last.line if len(last.text) > 7 and RULER.match(last.text) else ""
