"""What we know of reports, one family a file. Facts of each are from where the kernel prints it."""

from __future__ import annotations

from pytest_hil.crash.rule import Rule
from pytest_hil.crash.rules import (
    bug,
    corruption,
    firmware,
    kasan,
    kcsan,
    kfence,
    kmsan,
    lockdep,
    lockup,
    memory,
    oops,
    panic,
    program,
    resets,
    sanitizers,
    ubsan,
    warning,
)
from pytest_hil.crash.rules.harmless import HARMLESS

# The first whose header matches has the line: what is special stands before what is general.
BUILTIN: tuple[Rule, ...] = (
    *(*kasan.RULES, *kfence.RULES, *kmsan.RULES, *kcsan.RULES, *ubsan.RULES),
    *(*lockdep.RULES, *lockup.RULES, *memory.RULES, *corruption.RULES, *panic.RULES),
    *(*resets.RULES, *oops.RULES, *sanitizers.RULES, *warning.RULES, *program.RULES),
    *(*firmware.RULES, *bug.RULES),
)

__all__ = ["BUILTIN", "HARMLESS"]
