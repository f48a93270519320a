"""Panics (kernel/panic.c): the end of what was reported, or the first that is said of it."""

from __future__ import annotations

import re

from pytest_hil.crash import title as names
from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Body, Rule, Title, plain

_START = "Kernel panic - not syncing: "
_SAYS = r"Kernel panic - not syncing: "
# Everything of the kernel's that a panic can be the end of.
_ENDS = frozenset(
    {
        "oops",
        "bug",
        "kasan",
        "kfence",
        "kmsan",
        "kcsan",
        "ubsan",
        "lockdep",
        "warning",
        "cut",
        "list",
        "refcount",
        "slab",
        "usercopy",
        "fortify",
        "debugobjects",
        "soft-lockup",
        "hard-lockup",
        "rcu-stall",
        "hung-task",
        "workqueue",
        "oom",
        "memory-leak",
        "atomic",
        "preempt",
        "spinlock",
        "page",
        "panic",
        "stack-protector",
        "init-killed",
        "no-root",
        "no-init",
    }
)


def _panic(kind: str, header: str, title: Title) -> Rule:
    return Rule(
        kind=kind,
        severity=Severity.FATAL,
        starts=(_START,),
        header=Pattern(_SAYS + header),
        title=title,
        body=Pattern(
            r"exitcode|.*\[ end Kernel panic|Rebooting|flash|Kernel|Please append|\d+ +\w+ \S+|List"
        ),
        lone=True,
        continues=_ENDS,
        patience=40,
    )


def _reason(body: Body) -> str:
    return f"panic: {names.normal(body.match[1])}"


def _stack(body: Body) -> str:
    found = names.symbol(body.match[1])
    if found is None:
        named = re.search(r"corrupted in: (?![0-9a-f]{8,16}$)(\w\S*)", body.match[1])
        return f"stack corruption in {named[1]}" if named else "stack corruption"
    return f"stack corruption in {found}"


RULES = (
    _panic("stack-protector", r"(stack-protector: .*)", _stack),
    _panic(
        "init-killed", r"(Attempted to kill init!.*)", lambda body: f"init was killed{body.where()}"
    ),
    _panic("no-root", r"(VFS: Unable to mount root.*)", plain("no root file system")),
    _panic("no-init", r"((?:No working init|No init) found.*)", plain("no init")),
    _panic("no-init", r"(Requested init .* failed.*)", plain("no init")),
    _panic("panic", r"(.*)", _reason),
)
