"""The checks of a USB/IP server as a suite for other projects' tests: one test id a check.

Not loaded by itself. In a conftest.py, say ``pytest_plugins =
["pytest_hil.plugin.usbip_conformance"]`` and make a fixture ``usbip_server`` that gives ``(host,
port, busid)``, of any scope; in a test module, import :func:`test_usbip_conformance`.
"""

from __future__ import annotations

import pytest

from pytest_hil.usbip.conformance import CHECKS, Check, Result, Runner

__all__ = ["test_usbip_conformance"]

Server = tuple[str, int, str]


@pytest.fixture
def usbip_server() -> Server:
    """The server that is checked: to be overridden. A busid of "" is its first device."""
    pytest.fail(
        "no server to check: make a fixture usbip_server that gives (host, port, busid)",
        pytrace=False,
    )


@pytest.mark.parametrize("check", [pytest.param(one, id=one.id) for one in CHECKS])
def test_usbip_conformance(check: Check, usbip_server: Server) -> None:
    """One rule of the protocol; skipped where the device has nothing to try it with."""
    host, port, busid = usbip_server
    outcome = Runner((host, port), busid).run(check)
    if outcome.result is Result.NOT_APPLICABLE:
        pytest.skip(outcome.reason)
    if outcome.result is Result.FAIL:
        pytest.fail(
            f"{check.title}\n  expected {outcome.expected}\n  seen     {outcome.seen}\n"
            f"  rule     {check.source}",
            pytrace=False,
        )
