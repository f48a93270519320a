"""Firmware on a Cortex-M3: a console and a power switch, nothing else."""

from __future__ import annotations

import pytest

from pytest_hil import Target, Unsupported

# On any other target these are skipped.
pytestmark = pytest.mark.hil(target="m3")


def test_echoes(hil: Target) -> None:
    hil.console.send("ping\n")
    hil.console.expect("ping\n", timeout=5)


def test_says_its_line_after_each_reset(hil: Target) -> None:
    before = hil.console.mark()
    hil.reset()
    assert "firmware is up" in hil.console.since(before)


def test_comes_back_from_a_power_cut(hil: Target) -> None:
    hil.power.off()
    assert not hil.power.read()
    hil.power.on()
    hil.console.send("x")
    hil.console.expect("x", timeout=5)


def test_has_no_shell(hil: Target) -> None:
    assert "shell" not in hil.features
    with pytest.raises(Unsupported, match="no agent runs on it"):
        hil.run("true")
