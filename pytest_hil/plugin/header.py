"""The header's line for each chosen target: what it is, and what is there of it already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_hil.plugin import chosen
from pytest_hil.plugin.bench import bench_of

if TYPE_CHECKING:
    from pytest_hil.config import BoardTarget

_MiB = 2**20


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not chosen.names(config) or not chosen.usable(config):
        return []
    return [f"hil: {_line(config, name)}" for name in chosen.names(config)]


def _line(config: pytest.Config, name: str) -> str:
    from pytest_hil.config import BoardTarget, PoolTarget
    from pytest_hil.plugin.known import look

    bench = bench_of(config)
    target = bench.describe(name)
    if isinstance(target, BoardTarget):
        return _board(target)
    if isinstance(target, PoolTarget):
        return f"{name}: {len(target.boards)} boards ({', '.join(b.name for b in target.boards)})"
    known = look(bench, target)
    machine = [target.arch, f"{target.memory // _MiB} MB"]
    if target.smp > 1:
        machine.append(f"{target.smp} CPUs")
    accel = "KVM to be tried"
    if known.accel is not None:
        accel = known.accel.name.upper()
    image = f"image {target.image}"
    if own := target.disk or target.kernel:
        image = f"{own.name} ({image})" if own is target.kernel and not target.initrd else own.name
    template = "template " + ("ready" if known.template else "to be made")
    if not bench.settings.templates or not known.can_save:
        template = "no template: each machine is booted"
    parts = [
        f"{name} ({', '.join(machine)})",
        accel,
        f"{image} {'ready' if known.image else 'to be made'}",
        template,
    ]
    return ", ".join(parts)


def _board(target: BoardTarget) -> str:
    power = f"power by {target.power.driver}" if target.power else "no power switch"
    stages = " → ".join(one.driver for one in target.boot) or "no boot stages"
    console = f"console by {target.console.driver}"
    return f"{target.name} (board, {target.arch}), {console}, {power}, {stages}"
