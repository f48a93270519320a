"""The hooks that pytest-hil calls, for conftest.py files and other plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pytest_hil.target import Target


@pytest.hookspec()
def pytest_hil_ready(target: Target, item: pytest.Item, label: str) -> None:
    """A target is ready, and a test is about to use it.

    Called before the ``hil`` fixture or ``hil_open()`` returns it. With ``--hil-scope=module`` or
    ``session`` it is called anew for each test that uses a target which was there before.
    What it raises is the test's error.

    :param label: "" for ``hil``; what ``hil_open()`` opens is ``2-NAME``, ``3-NAME``, …
    """
