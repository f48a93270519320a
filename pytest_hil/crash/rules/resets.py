"""Banners of what runs before the system: a boot has begun.

A boot goes up: a banner of the same stage as the last, or of one below it, is that of another boot.
"""

from __future__ import annotations

import re

from pytest_hil.crash.crash import Severity
from pytest_hil.crash.pattern import Pattern
from pytest_hil.crash.rule import Rule, plain

# Name, stage, what it begins with, and the rest of the pattern.
_BANNERS = (
    ("ESP boot ROM", 0, "ESP-ROM:", r"\w+"),
    ("ESP boot ROM", 0, "ets ", r"[A-Z][a-z]{2} +\d+ \d{4} \d\d:\d\d:\d\d"),
    ("U-Boot TPL", 0, "U-Boot TPL ", r"\d{4}\.\d\d"),
    ("TF-A BL1", 0, "NOTICE:  BL1: ", r"(?:v\d|Booting Trusted)"),
    ("U-Boot SPL", 1, "U-Boot SPL ", r"\d{4}\.\d\d"),
    ("TF-A BL2", 2, "NOTICE:  BL2: ", r"v\d"),
    ("TF-A BL31", 3, "NOTICE:  BL31: ", r"v\d"),
    ("OpenSBI", 3, "OpenSBI v", r"\d"),
    ("U-Boot", 4, "U-Boot ", r"\d{4}\.\d\d\S* \("),
    ("barebox", 4, "barebox ", r"\d{4}\.\d\d\.\d\S* #"),
    ("SeaBIOS", 4, "SeaBIOS (version ", r"\S+"),
    ("EDK II", 4, "UEFI firmware (version ", r"\S+"),
    ("EDK II's shell", 6, "UEFI Interactive Shell v", r"\d"),
    ("GRUB", 6, "GNU GRUB  version ", r"\d"),
    ("Zephyr", 7, "*** Booting Zephyr OS ", r"(?:build|version) \S+"),
    ("Zephyr", 7, "***** Booting Zephyr OS ", r"(?:build|version|zephyr-)\S*"),
    ("MCUboot", 4, "*** Booting MCUboot ", r"\S+"),
)


def _rule(name: str, start: str, rest: str) -> Rule:
    return Rule(
        kind="reset",
        severity=Severity.FATAL,
        starts=(start,),
        header=Pattern(re.escape(start) + rest),
        title=plain(f"unexpected reset: {name}"),
        lone=True,
        firm=True,
        patience=1,
    )


RULES = tuple(_rule(name, start, rest) for name, _stage, start, rest in _BANNERS)
_STAGES = {rule: stage for rule, (_name, stage, *_) in zip(RULES, _BANNERS, strict=True)}


def stage_of(rule: Rule) -> int:
    """How far up in a boot a rule's banner is; a user's own rule is at the bottom."""
    return _STAGES.get(rule, 0)
