"""What went wrong on a target, found in what its console said: bytes in, crashes out.

``Detector`` reads along, ``Rules`` say what it looks for, ``Crash`` is what it finds.
No socket, thread or clock: who owns the console feeds the detector and tells it of silence.
"""

from __future__ import annotations

from pytest_hil.crash.crash import Crash, Severity
from pytest_hil.crash.detector import Detector
from pytest_hil.crash.rule import Rule, user_rule
from pytest_hil.crash.ruleset import Rules

__all__ = ["Crash", "Detector", "Rule", "Rules", "Severity", "user_rule"]
