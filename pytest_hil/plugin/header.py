"""The header's line for each chosen target: what it is, and what is there of it already.

It makes nothing: what only a build, a download or a boot would tell is said to be not known.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.errors import HilError
from pytest_hil.plugin import chosen
from pytest_hil.plugin.bench import bench_of
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.config import Config, QemuTarget
    from pytest_hil.qemu.accel import Accel
    from pytest_hil.qemu.hardware import AccelName

_MiB = 2**20


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not chosen.names(config) or not chosen.usable(config):
        return []
    return [f"hil: {_line(config, name)}" for name in chosen.names(config)]


def _line(config: pytest.Config, name: str) -> str:
    bench = bench_of(config)
    target = bench.target(name)
    parts = [target.arch, f"{target.memory // _MiB} MB"]
    if target.smp > 1:
        parts.append(f"{target.smp} CPUs")
    what = f"{name} ({', '.join(parts)})"
    settings = bench.settings
    found = _look(target, bench.config, bench.cache.root, settings.accel)
    if not settings.templates:
        found[-1] = "no template: each machine is booted"
    return ", ".join([what, *found])


def _look(target: QemuTarget, config: Config, cache: Path, choice: Any) -> list[str]:
    """The accelerator, the image and the template, as far as they are known."""
    image = target.image
    if target.kernel or target.initrd or target.disk:
        image = (target.disk or target.kernel or Path(image)).name
    try:
        accel = _accel(target, cache, choice)
    except (HilError, _NotThereError):
        return ["KVM to be tried", f"image {image}", "template to be made"]
    found = [accel.name.upper() + (f" ({accel.why})" if accel.why else "")]
    try:
        state = _template(target, config, cache, accel.name)
    except (HilError, _NotThereError):
        return [*found, f"image {image} to be made", "template to be made"]
    return [*found, f"image {image} ready", state]


def _accel(target: QemuTarget, root: Path, choice: Any) -> Accel:
    from pytest_hil.qemu import accel, emulator, plan

    cache = _seeing(root)
    return accel.choose(
        choice,
        emulator.find(target.arch, cache),
        cache,
        possible=plan.can_accelerate(target),
        boot=_never,
        progress=silent,
    )


def _template(target: QemuTarget, config: Config, root: Path, accel: AccelName) -> str:
    from pytest_hil.agent import build
    from pytest_hil.qemu import plan, template

    cache = _seeing(root)
    if not build.is_built(target.arch):
        raise _NotThereError("agent")
    made = plan.make(target, config, cache, accel=accel, progress=silent)
    if not made.can_save:
        return "no template: each machine is booted"
    return "template ready" if template.ready(made, cache) else "template to be made"


class _NotThereError(Exception):
    """Something would have to be made first."""


def _never(_accel: AccelName, _timeout: float) -> None:
    raise _NotThereError("accelerator")


def _seeing(root: Path) -> Any:
    """A cache that makes nothing."""
    from pytest_hil.cache import Cache

    class Seeing(Cache):
        def make(
            self,
            kind: str,
            key: str,
            build: Callable[[Path], None],  # noqa: ARG002
            *,
            progress: Progress = silent,  # noqa: ARG002
        ) -> Path:
            found = self.get(kind, key)
            if found is None:
                raise _NotThereError(kind)
            return found

        replace = make

    return Seeing(root)
