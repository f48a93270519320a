"""What is there of a target already: found out without making, fetching or booting anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pytest_hil.cache import Cache
from pytest_hil.errors import HilError
from pytest_hil.progress import Progress, silent

if TYPE_CHECKING:
    from pytest_hil.bench import Bench
    from pytest_hil.config import QemuTarget
    from pytest_hil.qemu.accel import Accel
    from pytest_hil.qemu.hardware import AccelName
    from pytest_hil.qemu.plan import Plan


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known:
    """``accel`` None: a boot must tell. ``can_save`` and ``template`` are known with the image."""

    accel: Accel | None
    image: bool = False
    can_save: bool = True
    template: bool = False


def look(bench: Bench, target: QemuTarget) -> Known:
    """What there is of a target; what cannot be found out is said not to be there."""
    cache = _Seeing(bench.cache.root)
    accel = _try(lambda: _accel(bench, target, cache))
    # The image is the same under both.
    name: AccelName = accel.name if accel is not None else "tcg"
    plan = _try(lambda: _plan(bench, target, cache, name))
    if plan is None:
        return Known(accel)
    return Known(accel, True, plan.can_save, accel is not None and _has_template(plan, cache))


def check_accel(bench: Bench, target: QemuTarget) -> None:
    """Raises ConfigError when KVM is demanded and known not to work here."""
    with contextlib.suppress(_NotThereError):
        _accel(bench, target, _Seeing(bench.cache.root))


class _NotThereError(Exception):
    """Something would have to be made first."""


class _Seeing(Cache):
    """A cache that makes nothing."""

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


def _try(find: Callable[[], T]) -> T | None:
    try:
        return find()
    except (HilError, _NotThereError):
        return None


def _accel(bench: Bench, target: QemuTarget, cache: Cache) -> Accel:
    from pytest_hil.qemu import accel, emulator, plan

    return accel.choose(
        bench.settings.accel,
        emulator.find(target.arch, cache),
        cache,
        possible=plan.can_accelerate(target),
        boot=_never,
        progress=silent,
    )


def _plan(bench: Bench, target: QemuTarget, cache: Cache, accel: AccelName) -> Plan:
    from pytest_hil.agent import build
    from pytest_hil.qemu import plan

    if target.agent and not build.is_built(target.arch):
        raise _NotThereError("agent")
    return plan.make(target, bench.config, cache, accel=accel, progress=silent)


def _has_template(plan: Plan, cache: Cache) -> bool:
    from pytest_hil.qemu import template

    return plan.can_save and template.ready(plan, cache) is not None


def _never(_accel: AccelName, _timeout: float) -> None:
    raise _NotThereError("accelerator")
