"""The fixtures ``hil`` and ``hil_open``: opening targets, sharing them, closing them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest

from pytest_hil.plugin import chosen, hookspecs, marker, options, status, strict
from pytest_hil.plugin.bench import bench_of
from pytest_hil.plugin.hopes import hopes_of
from pytest_hil.plugin.items import Use, attempt_of, now
from pytest_hil.plugin.needs import meant_for
from pytest_hil.plugin.selection import (
    Wanted,
    describe,
    lacking,
    unfit,
    uses_target,
    wanted_of,
    why_not,
)

if TYPE_CHECKING:
    from pytest_hil.target import Opened, Target

Scope = Literal["function", "module", "session"]
HilOpen = Callable[..., "Target"]

# The target that the `hil` fixture shares between tests now.
_SHARED = pytest.StashKey[tuple[Wanted, "Opened"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-scope",
        choices=("function", "module", "session"),
        help="how long a target is used before a fresh one takes its place (default: function, a "
        "fresh one for each test)",
    )
    parser.addini("hil_scope", "function, module or session")


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    pluginmanager.add_hookspecs(hookspecs)


def scope(config: pytest.Config) -> Scope:
    words = options.one_of("function", "module", "session")
    return cast("Scope", options.chosen(config, "scope", words, "function"))


def pytest_configure(config: pytest.Config) -> None:
    # A wrong word is the user's error here; where fixtures are made it would be pytest's.
    scope(config)


def _scope(fixture_name: str, config: pytest.Config) -> Scope:  # noqa: ARG001 - pytest's
    return scope(config)


@pytest.fixture(scope=_scope)
def hil(request: pytest.FixtureRequest) -> Iterator[Target]:
    """The target that the test runs on: a factory-fresh machine, ready to be used."""
    item = _item(request)
    wanted = _wanted(request, item)
    began = time.monotonic()
    target = open_target(item, wanted)
    try:
        enter(item, wanted, target, "", opened_in=time.monotonic() - began)
        if scope(request.config) != "function":
            request.config.stash[_SHARED] = (wanted, target)
        yield target
    finally:
        if _SHARED in request.config.stash:
            del request.config.stash[_SHARED]
        _close(request.config, target)


@pytest.fixture(scope=_scope)
def hil_open(request: pytest.FixtureRequest) -> Iterator[HilOpen]:
    """``hil_open(name=None, **changes)`` opens a further target.

    ``name`` None: one like the test's own. ``changes`` are keys of ``[target.NAME]``. What a test
    opens is closed at its end; what a fixture opens lives as long as ``--hil-scope`` says.
    """
    config = request.config
    count = 1

    with ExitStack() as of_fixture:

        def open(name: str | None = None, **changes: Any) -> Target:
            nonlocal count
            item = _item(request)
            wanted = _another(config, name, changes, _wanted(request, item))
            began = time.monotonic()
            target = open_target(item, wanted)
            opened_in = time.monotonic() - began
            attempt = attempt_of(item)
            if attempt is not None and attempt.in_call:
                item.addfinalizer(target.close)
            else:
                of_fixture.callback(_close, config, target)
            count += 1
            enter(item, wanted, target, f"{count}-{wanted.name}", opened_in=opened_in)
            return target

        yield open


def _close(config: pytest.Config, target: Opened) -> None:
    """Close a target that several tests may have used."""
    from pytest_hil.plugin.crashes import check_left

    try:
        check_left(config, target)
    finally:
        target.close()


def open_target(item: pytest.Item, wanted: Wanted) -> Opened:
    """A fresh target as it is wanted. Skips the test if it lacks a feature after all."""

    from pytest_hil.config import QemuTarget

    config = item.config
    bench = bench_of(config)
    with hopes_of(config).trying(wanted.target, item), status.status_of(config).phase():
        accels = wanted.features & {"kvm", "tcg"}
        if accels and isinstance(wanted.target, QemuTarget):
            missing = accels - {bench.accel(wanted.target).name}
            if reason := lacking(wanted, missing):
                strict.refuse(config, reason)
        target = bench.open(wanted.target, features=wanted.features, board=meant_for(item))
        try:
            _check_kernel(config, wanted, target)
        except BaseException:
            target.close()
            raise
        return target


def _check_kernel(config: pytest.Config, wanted: Wanted, target: Target) -> None:
    """Skip the test if its target has another kernel than it wants."""
    kernel = wanted.wish.kernel
    if kernel and (reason := kernel.unmet(target.kernel)):
        strict.refuse(config, f"the target {wanted.name}: the test {reason}")


def enter(
    item: pytest.Item,
    wanted: Wanted,
    target: Opened,
    label: str,
    *,
    opened_in: float | None = None,
) -> None:
    """A test begins to use a target, which it took ``opened_in`` seconds to have."""
    attempt = attempt_of(item)
    if attempt is not None:
        attempt.uses.append(Use(label, wanted, target, opened_in))
    # JUnit's word for it: the same test on two targets stays two.
    if ("hil_target", target.name) not in item.user_properties:
        item.user_properties.append(("hil_target", target.name))
    item.config.hook.pytest_hil_ready(target=target, item=item, label=label)
    # Of its twins, those that earlier tests have left are this one's too.
    for number, twin in enumerate(target.twins, 1):
        if not twin.closed:
            enter(item, wanted, twin, _twins_label(label, number))
    # Without the target in it: it would keep itself alive.
    target.on_fork = lambda first, twin: enter(
        _test_of(item), wanted, twin, _twins_label(label, len(first.twins))
    )


def _twins_label(label: str, number: int) -> str:
    return f"{label}-fork-{number}" if label else f"fork-{number}"


def _test_of(item: pytest.Item) -> pytest.Item:
    """The test that runs now: it may be another one than that which the target was opened for."""
    attempt = now(item.config).attempt
    return item if attempt is None else attempt.item


def _item(request: pytest.FixtureRequest) -> pytest.Item:
    """The test that runs now: a fixture of a module knows only the one that it was made for."""
    attempt = now(request.config).attempt
    if attempt is None:
        raise RuntimeError("hil and hil_open are for tests that pytest runs")
    return attempt.item


def _wanted(request: pytest.FixtureRequest, item: pytest.Item) -> Wanted:
    found = getattr(request, "param", None) or wanted_of(item)
    if isinstance(found, Wanted):
        return found
    # It calls request.getfixturevalue("hil"), or is unittest's: there is no parameter for it.
    wish = marker.wish_of(item)
    names = chosen.names(request.config)
    mine = [name for name in names if wish.targets is None or name in wish.targets]
    if not mine:
        strict.refuse(request.config, why_not(item))
    chosen.check(request.config)
    wanted = describe(request.config, mine[0], wish)
    if reason := unfit(wanted):
        strict.refuse(request.config, reason)
    return wanted


def _another(config: pytest.Config, name: object, changes: dict[str, Any], own: Wanted) -> Wanted:
    """What hil_open() is asked for."""
    if not isinstance(name, str | None):
        from pytest_hil.errors import ConfigError

        mend = 'write hil_open("qemu"), or hil_open() for one like the test\'s own'
        raise ConfigError("hil_open()", f"{name!r} is no target's name", mend=mend)
    if name is None:
        name, changes = own.name, {**own.changes, **changes}
    return describe(config, name, marker.Wish(changes=changes), where="hil_open()")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test that gets the target of the one before it uses it from here on."""
    shared = item.config.stash.get(_SHARED, None)
    wanted = wanted_of(item)
    if shared is None or wanted is None or wanted != shared[0] or not uses_target(item):
        return
    target = shared[1]
    if reason := lacking(wanted, wanted.features - target.features):
        strict.refuse(item.config, reason)
    _check_kernel(item.config, wanted, target)
    enter(item, wanted, target, "")
