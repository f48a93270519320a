"""Saving a machine's state: what is said where there is no room for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_hil.errors import NoRoom
from pytest_hil.qemu import state


def test_no_room_names_what_moves_each_kind_of_state(tmp_path: Path) -> None:
    with pytest.raises(NoRoom) as raised:
        state.check_disk(tmp_path, 2**62)
    assert f"in {tmp_path}; " in raised.value.message
    for what in ("TMPDIR=DIR for snap", "PYTEST_HIL_CACHE=DIR for temp", "--hil-artifacts=DIR for"):
        assert what in raised.value.mend
