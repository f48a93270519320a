"""Lines that look like the beginning of a report and are none that anybody must look at."""

from __future__ import annotations

from pytest_hil.crash.pattern import Pattern

# Pattern of a message, and why.
_TABLE = {
    r"WARNING: (?:[kK]ernel stack (?:regs|frame pointer) at|can't (?:dereference"
    r"|access) registers at"
    r"|stack (?:recursion on|going in the wrong)|unrecognized unwind stack type)": "the unwinder "
    "lost its way in a trace: the trace belongs to something else, which is reported",
    r"INFO: NMI handler \(\S+\) took too long to run": "a slow host: usual in emulated machines",
    r"INFO: lockdep is turned off": "one more line of every later report",
    r"BUG: (?:MAX_\w+|MAX \w+) too low!": "lockdep ran out of room and turned itself off",
    r"BUG: \d+ unexpected failures \(out of \d+\)": "the self-test of locking says it itself",
    r"BUG: workqueue \S+ hogged CPU": "a hint to make it unbound",
    r"usercopy: (?!Kernel memory)": "a message of its self-test",
}
HARMLESS = tuple(Pattern(each) for each in _TABLE)
