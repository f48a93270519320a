"""A report that is being read: from its header until it ends, or nothing more comes."""

from __future__ import annotations

import re

from pytest_hil.crash.crash import Crash, Severity
from pytest_hil.crash.line import Message
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import ENDLESS, Body, Rule
from pytest_hil.crash.title import normal

# Bounds of a report. A kernel that never stops must not fill our memory.
MOST_LINES = 2000
MOST_BYTES = 256 * 1024
_LONGEST_TITLE = 300

_SYMBOL = Pattern(r"\+0x[0-9a-f]+/0x[0-9a-f]+|\[<[0-9a-f]{8,16}>\]|\bfrom \w+\+0x")
_USUAL = Pattern(
    r"""\s*(?:
    # traces and what stands around them
      (?:Call[ ][Tt]race|[Bb]acktrace|stack[ ]backtrace|Stack|Exception[ ]stack)\b
    | </?(?:TASK|IRQ|NMI|SOFTIRQ|EOI|EOE|\#\w+|ENTRY_TRAMPOLINE)>
    | [=*-]{8,}\s*$ | ---\[[ ]
    # who and where
    | (?:CPU|Comm|PID|UID|Hardware[ ]name|Workqueue|Modules[ ]linked[ ]in|Not[ ]tainted|Tainted|Code
      |Process|Sending[ ]NMI|task|Kernel[ ]Offset|Kernel[ ]version|CPU[ ]features|Memory[ ]Limit
      |SMP|PHYS_OFFSET|last[ ]unloaded|Stopper|Krnl|NIP|Dumping[ ]ftrace|\(ftrace|Rebooting[ ]in
      |Disabling[ ]lock[ ]debugging|INFO:[ ]lockdep[ ]is[ ]turned[ ]off|Preemption[ ]disabled[ ]at
      |in_atomic|preempt_count|irq[ ]event[ ]stamp|hard(?:irq)s[ ]last|softirqs[ ]last
      |Kernel[ ]panic|note|ftrace|Fixing[ ]recursive[ ]fault|RCU[ ]nest[ ]depth
      |\d+[ ]locks?[ ]held[ ]by|no[ ]locks[ ]held|Showing[ ]all[ ]locks)\b
    | \#\d+:[ ]
    # registers and faults, of x86, arm, arm64 and riscv
    | (?:[RE]?(?:IP|SP|FLAGS|[ABCD]X|[SD]I|BP)|R\d\d|[FGDE]S|CR\d|DR\d|PKRU|ORIG_RAX|PGD|Oops|Bad)\b
    | \#PF | \*pde? | \[[0-9a-f]{8,16}\]
    | (?:pc|lr|sp|fp|ip|x\d+|r\d+|[vw]\d+|pstate|epc|ra|gp|tp|[ast]\d+|status|cause|badaddr)[ ]?:
    | (?:Flags|Control|Register[ ]\w+|Mem[ ]abort|Data[ ]abort|ESR|EC|SET|FnV|EA|S1PTW|FSC|ISV|ISS
      |CM|GCS|user[ ]pgtable|swapper[ ]pgtable|Internal[ ]error|KASAN|kasan|Unable)\b
    | [0-9a-f]{4,16}:[ ]|(?:[0-9a-f]{16}[ ]?){2,4}$|raw:[ ]
    )""",
    re.VERBOSE,
)
_PANIC_ENDS = Pattern(r"---\[ end Kernel panic|Rebooting in \d+ seconds")
_PROCESSOR = Pattern(r"CPU: \d+ ")
_DIED = Pattern(r".*\bTainted: (?:[A-Z ]*\bD\b|.*\[D\]=DIE)")
# What a report without the kernel's prefix must have: others say "Oops" too.
_CERTAIN = Pattern(
    r".*[\w.]\+0x[0-9a-f]+/0x[0-9a-f]+|CPU: \d+ |\s*Call [Tt]race:|---\[ end |Rebooting in \d"
    r"|  comm \""
)
_TRACED = Pattern(r"[\w.]\+0x[0-9a-f]+/0x[0-9a-f]+")


class Report:
    """An open report. Lines are offered to it; it takes what is like a report's."""

    def __init__(self, rule: Rule, found: re.Match[str], first: Message) -> None:
        self.rule = rule
        self.match = found
        self.first = first
        self.panic = ""
        self.kinds = {rule.kind}
        self._texts = [first.text]
        self._lines = [first.line]
        self._taken = len(self._lines)  # after the last line that is certainly of it
        self._last = first
        self._bytes = len(first.line)
        self._strange = 0
        self._foreign = 0
        self._traced = False
        self._ended = rule.lone
        self._body = False
        self._torn = first.torn
        self._nested = False
        self._died_before: bool | None = None

    # what comes

    def precede(self, line: str) -> None:
        """A line before the header, which belongs to it: a ruler."""
        self._lines.insert(0, line)
        self._texts.insert(0, "")
        self._taken += 1

    def add(self, message: Message) -> None:
        """The next line of the same context."""
        text = message.text
        if self.first.kernel != message.kernel:
            self._foreign += 1
            self._keep(message)
            return
        own = self.rule.body is not None and self.rule.body.match(text)
        end = self.rule.end is not None and self.rule.end.match(text)
        if not (own or end or _USUAL.match(text) or _SYMBOL.search(text)):
            self._strange += bool(text)
            self._keep(message)
            return
        self._take(message)
        self._body = self._body or bool(_CERTAIN.match(text))
        self._traced = self._traced or bool(_TRACED.search(text))
        if self._died_before is None and _PROCESSOR.match(text):
            # A later one, of the panic that follows, has the taint of this crash itself.
            self._died_before = bool(_DIED.match(text))
        if end or (self.panic and _PANIC_ENDS.match(text)):
            self._ended = True

    def refine(self, rule: Rule, found: re.Match[str], message: Message) -> None:
        """A line says what this really is."""
        self.rule, self.match = rule, found
        self._ended = self._ended or rule.lone
        self.kinds.add(rule.kind)
        self._take(message)

    def go_on(self, rule: Rule, found: re.Match[str], message: Message) -> None:
        """A header that is only one more line of this."""
        self.kinds.add(rule.kind)
        self._take(message)
        if rule.kind in _PANICS and not self.panic:
            self.panic = found[1].strip() or "panic"

    def _keep(self, message: Message) -> None:
        self._lines.append(message.line)
        self._bytes += len(message.line)

    def _take(self, message: Message) -> None:
        self._keep(message)
        self._texts.append(message.text)
        self._taken = len(self._lines)
        self._last = message
        self._strange = self._foreign = 0
        self._torn = self._torn or message.torn

    def interrupted(self) -> None:
        """Another report began before this one was whole."""
        self._nested = True

    # what is to be known of it

    @property
    def whole(self) -> bool:
        """Whether it has all that a report of its kind has."""
        return self._ended or bool(self.panic) or (self.rule.end is None and self._traced)

    @property
    def over(self) -> bool:
        """Whether it has ended: what it is made of does not come any more, or it is too much."""
        if len(self._lines) >= MOST_LINES or self._bytes >= MOST_BYTES:
            return True
        strange = self.rule.patience if self.whole and not self.panic else ENDLESS
        return self._strange >= strange or self._foreign >= ENDLESS

    @property
    def believed(self) -> bool:
        """Whether there is more than a line that reads like a header."""
        return self._body or self.rule.firm or self.first.kernel

    @property
    def grave(self) -> bool:
        """Whether what comes after it may come of it."""
        bad = self.rule.severity in (Severity.FATAL, Severity.ERROR)
        return self.believed and (bad or bool(self.panic))

    def _title(self, body: Body) -> str:
        try:
            title = self.rule.title(body) or self.rule.kind
        except Exception:
            # A user's rule: its crash is told of, whatever is wrong with its title.
            title = f"{self.rule.kind}: {normal(self.match[0])}"
        return "".join(each if each.isprintable() else "�" for each in title[:_LONGEST_TITLE])

    def crash(self, *, after_another: bool) -> Crash:
        """What it says."""
        body = Body(self.match, self._texts)
        panic = self.panic or (self.match[1] if self.rule.kind in _PANICS else "")
        fatal = bool(panic) and self.rule.severity is not Severity.USER
        return Crash(
            kind=self.rule.kind,
            severity=Severity.FATAL if fatal else self.rule.severity,
            title=self._title(body),
            text="".join(f"{line}\n" for line in self._lines[: self._taken]),
            start=self.first.start,
            end=self._last.end,
            at=self.first.at,
            until=self._last.at,
            panic=panic,
            corrupted=self._torn or self._nested or not self.whole,
            follow_up=after_another or bool(self._died_before),
        )


_PANICS: frozenset[str] = frozenset(
    {"panic", "stack-protector", "init-killed", "no-root", "no-init"}
)


def continues(rule: Rule, report: Report) -> bool:
    """Whether a header is one more line of a report: a panic's also when all of it was there."""
    late = rule.firm or rule.kind in _PANICS
    return bool(rule.continues & report.kinds) and (late or not report.whole)


def refines(rule: Rule, report: Report) -> bool:
    return report.rule.kind in rule.refines
