"""--hil-scope=module: the tests of a file share one machine, in their order.

A fresh machine costs next to nothing, so that this is for targets which are slow to get ready.
With xdist, add --dist=loadfile: it keeps the tests of a file together.
"""

from __future__ import annotations

import pytest

from pytest_hil import Target


def test_leaves_something(hil: Target) -> None:
    hil.run("touch /tmp/left")


def test_finds_it_only_if_the_machine_is_shared(hil: Target, pytestconfig: pytest.Config) -> None:
    shared = pytestconfig.getoption("hil_scope") in ("module", "session")
    there = hil.run("test -e /tmp/left", check=False).exit_code == 0
    assert there == shared
