"""When a target is not tried any more."""

from __future__ import annotations

import pytest

from pytest_hil.config import QemuTarget
from pytest_hil.errors import (
    BootTimeout,
    HilError,
    ImageError,
    InfrastructureError,
    MachineError,
    NoRoom,
    ToolMissing,
)
from pytest_hil.plugin.hopes import Hopes

ONE = QemuTarget(name="one", arch="x86_64")
TWO = QemuTarget(name="two", arch="x86_64")


def attempts(hopes: Hopes, error: HilError, item: pytest.Item) -> int:
    """How many attempts fail before none is made any more."""
    for count in range(10):
        tried = []
        with pytest.raises(InfrastructureError) as said, hopes.trying(ONE, item):  # noqa: PT012
            tried.append(ONE)
            raise error
        if not tried:
            assert "the target one is not tried any more: as in" in str(said.value)
            assert item.nodeid in str(said.value)
            return count
    return 10


@pytest.mark.parametrize(
    ("error", "count"),
    [
        (ToolMissing("qemu"), 10),
        (ImageError("no network"), 1),
        (NoRoom("all taken"), 2),
        (BootTimeout("one", timeout=60, waited_for="ready"), 2),
        (MachineError("chance"), 3),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_often(request: pytest.FixtureRequest, error: HilError, count: int) -> None:
    hopes = Hopes()
    assert attempts(hopes, error, request.node) == count
    with hopes.trying(TWO, request.node):
        pass


def test_a_success_in_between(request: pytest.FixtureRequest) -> None:
    hopes = Hopes()
    for _ in range(10):
        with pytest.raises(MachineError), hopes.trying(ONE, request.node):
            raise MachineError("chance")
        with hopes.trying(ONE, request.node):
            pass
