"""Which test runs on which target: parametrisation, and the reasons for not running at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from pytest_hil.errors import ConfigError
from pytest_hil.plugin import chosen, marker, strict
from pytest_hil.plugin.bench import bench_of

if TYPE_CHECKING:
    from pytest_hil.config import BoardTarget, PoolTarget, QemuTarget

FIXTURES = ("hil", "hil_open")
NO_TARGET = "no target chosen: --hil-target=qemu runs it (--hil-list shows all targets)"


@dataclass(frozen=True, slots=True, repr=False)
class Wanted:
    """The target of one test; the parameter of its ``hil`` fixture.

    ``missing`` are the features that the target is known to lack of those that the test requires,
    ``wish`` is all that its markers say. Two tests whose wanted are equal can share a target.
    """

    name: str
    target: QemuTarget | BoardTarget | PoolTarget
    missing: frozenset[str] = field(default=frozenset(), compare=False)
    wish: marker.Wish = field(default_factory=marker.Wish, compare=False)

    @property
    def features(self) -> frozenset[str]:
        """Those that the test requires."""
        return self.wish.features

    @property
    def changes(self) -> Mapping[str, Any]:
        """What the marker changed about the target."""
        return self.wish.changes or {}

    def __repr__(self) -> str:
        """What --setup-show shows of a fixture's parameter."""
        return self.name


def wanted_of(item: pytest.Item) -> Wanted | None:
    """The target that was chosen for a test when it was collected; None if it uses none."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return None
    params: Mapping[str, object] = callspec.params
    found = params.get("hil") or params.get("hil_open")
    return found if isinstance(found, Wanted) else None


def describe(
    config: pytest.Config, name: str, wish: marker.Wish, *, where: str = "@pytest.mark.hil"
) -> Wanted:
    """A chosen target as a test wants it. Raises ConfigError, which names ``where`` it says so."""

    from pytest_hil.config import BoardTarget, PoolTarget

    bench = bench_of(config)
    target: QemuTarget | BoardTarget | PoolTarget
    target = bench.pool(name) or bench.config.target(name)
    missing: frozenset[str] = frozenset()
    if isinstance(target, PoolTarget):
        missing = target.missing(wish.features)
    elif isinstance(target, BoardTarget):
        missing = wish.features - target.all_features
    else:
        target = bench.target(name, where=where, **(wish.changes or {}))
        if wish.features:
            from pytest_hil.qemu import features

            missing = wish.features - features.possible(target, bench.config)
    return Wanted(name, target, missing, wish)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    node = metafunc.definition
    wish = marker.wish_of(node)
    fixture = next((name for name in FIXTURES if name in metafunc.fixturenames), None)
    if fixture is None or not chosen.usable(metafunc.config):
        return
    _refuse_own(node, fixture)
    names = chosen.names(metafunc.config)
    mine = [name for name in names if wish.targets is None or name in wish.targets]
    try:
        params = [describe(metafunc.config, name, wish) for name in mine]
    except ConfigError as wrong:
        raise marker.error(node, str(wrong)) from None
    if params:
        # One target is no news to anybody: then the test keeps its name.
        ids = mine if len(names) > 1 else [pytest.HIDDEN_PARAM]
        metafunc.parametrize(fixture, params, ids=ids, indirect=True)


def _refuse_own(node: pytest.Item, fixture: str) -> None:
    """Pytest would only say that there are two parametrisations, and not whose the other is."""
    for mark in node.iter_markers("parametrize"):
        names = mark.args[0] if mark.args else mark.kwargs.get("argnames", ())
        words = names.replace(",", " ").split() if isinstance(names, str) else names
        if fixture in words:
            raise marker.error(
                node,
                f"@pytest.mark.parametrize({names!r}, …): {fixture} comes from --hil-target; "
                "@pytest.mark.hil(target=[…]) chooses among those",
            )


def pytest_itemcollected(item: pytest.Item) -> None:
    """What ``pytest.param(…, marks=pytest.mark.hil(…))`` says is known only now."""
    wanted = wanted_of(item)
    if wanted is None:
        return
    if not marker.of_parameters(item):
        return
    wish = marker.wish_of(item)
    if wish.targets is not None and wanted.name not in wish.targets:
        item.add_marker(pytest.mark.skip(reason=_only_for(wish.targets, (wanted.name,))))
        return
    try:
        own = describe(item.config, wanted.name, wish)
    except ConfigError as wrong:
        raise marker.error(item, str(wrong)) from None
    params = item.callspec.params  # type: ignore[attr-defined]
    params.update({name: own for name in FIXTURES if params.get(name) is wanted})


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    reasons = {}
    for item in items:
        if uses_target(item):
            chosen.stop_if_unusable(session)
            reasons[item] = why_not(item)
        elif item.get_closest_marker("hardware"):
            reasons[item] = _no_board(chosen.names(session.config))
    strict.turn_away(session.config, reasons)


def uses_target(item: pytest.Item) -> bool:
    fixtures = getattr(item, "fixturenames", ())
    return any(name in fixtures for name in FIXTURES)


def why_not(item: pytest.Item) -> str:
    """Why a test cannot run on its target, as far as it is known without one; "" if it can."""
    names = chosen.names(item.config)
    if not names:
        return NO_TARGET
    wanted = wanted_of(item)
    if wanted is not None:
        return unfit(wanted)
    targets = marker.wish_of(item).targets
    if targets is None or set(targets) & set(names):
        # One that pytest does not parametrise (unittest's): it is looked at when it is run.
        return ""
    return _only_for(targets, names)


def _only_for(targets: tuple[str, ...], chosen: tuple[str, ...]) -> str:
    return f"only for the target {' or '.join(targets)}; chosen: {', '.join(chosen)}"


def unfit(wanted: Wanted) -> str:
    """Why a test cannot run on a target of its kind, as far as it is known; "" if it can."""

    from pytest_hil.config import QemuTarget

    if not isinstance(wanted.target, QemuTarget):
        if wanted.changes:
            return (
                f"the target {wanted.name} is a board: {', '.join(wanted.changes)} cannot be chosen"
            )
    elif wanted.wish.hardware:
        return _no_board((wanted.name,))
    return lacking(wanted, wanted.missing)


def lacking(wanted: Wanted, missing: frozenset[str]) -> str:
    """That a target lacks features, in words; "" if nothing is missing."""
    if not missing:
        return ""
    many = "features" if len(missing) > 1 else "feature"
    return f"the target {wanted.name} lacks the {many} {', '.join(sorted(missing))}"


def _no_board(names: tuple[str, ...]) -> str:
    if not names:
        return "needs a board, and no target was chosen"
    return f"needs a board; {', '.join(names)} is emulated"
