"""Checks that any USB/IP server can be put to, ours and others': see :data:`CHECKS`."""

from __future__ import annotations

from pytest_hil.usbip.conformance.check import Check, Outcome, Result, Runner
from pytest_hil.usbip.conformance.data import DATA
from pytest_hil.usbip.conformance.hostile import HOSTILE
from pytest_hil.usbip.conformance.operations import OPERATIONS
from pytest_hil.usbip.conformance.unlink import UNLINK
from pytest_hil.usbip.conformance.urbs import URBS

__all__ = ["CHECKS", "Check", "Outcome", "Result", "Runner"]

GROUPS = (OPERATIONS, URBS, UNLINK, HOSTILE, DATA)

CHECKS: tuple[Check, ...] = tuple(check for group in GROUPS for check in group.checks)
