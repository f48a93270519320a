"""``pytest --hil-list``: the targets that there are, what they have, and which are chosen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import chosen, options
from pytest_hil.plugin.bench import bench_of

if TYPE_CHECKING:
    from pytest_hil.bench import Bench
    from pytest_hil.config import BoardTarget, QemuTarget

_MiB = 2**20


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-list", action="store_true", help="list the targets and their features, and exit"
    )


def pytest_cmdline_main(config: pytest.Config) -> int | None:
    if not config.getoption("hil_list"):
        return None
    from _pytest.config import create_terminal_writer

    writer = create_terminal_writer(config)
    bench = bench_of(config)
    try:
        targets = bench.config.targets
        picked = chosen.names(config)
        for name in picked:
            bench.config.target(name)
    except HilError as error:
        raise pytest.UsageError(str(error)) from None
    writer.line(f"targets ({bench.config.source}):")
    for name, target in targets.items():
        writer.write(f"  {name}", bold=True)
        writer.line(" (chosen)" if name in picked else "")
        for line in _lines(bench, target):
            writer.line(f"      {line}")
    if not picked:
        writer.line("none is chosen: --hil-target=NAME, or hil_target in the ini file")
    return 0


def _lines(bench: Bench, target: QemuTarget | BoardTarget) -> list[str]:
    from pytest_hil.config import BoardTarget

    if isinstance(target, BoardTarget):
        tags = f", tags: {', '.join(sorted(target.tags))}" if target.tags else ""
        return [
            f"board, {target.arch}{tags}",
            f"features: {', '.join(sorted(target.all_features))}",
        ]
    from pytest_hil.qemu import features

    boots = target.disk or target.initrd or target.kernel or f"image {target.image}"
    cpus = f"{target.smp} CPU" + ("s" if target.smp > 1 else "")
    machine = f"QEMU {target.machine}".rstrip()
    try:
        found = ", ".join(sorted(features.certain(target, bench.config)))
    except HilError as error:
        found = f"not usable: {error.message}"
    return [
        f"{machine}, {target.arch}, {target.memory // _MiB} MB, {cpus}, {boots}",
        f"features: {found}",
    ]
