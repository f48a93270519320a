"""``--hil-strict``: what no chosen target can run fails instead of being skipped."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import NoReturn

import pytest

from pytest_hil.plugin import chosen, options

_FIXTURES = ("hil", "hil_open")


def pytest_addoption(parser: pytest.Parser) -> None:
    options.group(parser).addoption(
        "--hil-strict",
        action="store_true",
        help="a test that none of the chosen targets can run fails; by default it is skipped",
    )
    parser.addini("hil_strict", "as --hil-strict", type="bool", default=False)


def is_strict(config: pytest.Config) -> bool:
    """Without a target nothing was asked for that could be missing."""
    wanted = config.getoption("hil_strict") or config.getini("hil_strict")
    return bool(wanted and chosen.names(config))


def turn_away(config: pytest.Config, reasons: Mapping[pytest.Item, str]) -> None:
    """Skip the tests that have a reason not to run. The strict fail those of them that run on none
    of the targets. ``reasons`` has all tests that want a target, with "" for those that run.
    """
    strict = is_strict(config)
    run = {_test(item) for item, reason in reasons.items() if not reason} if strict else set()
    for item, reason in reasons.items():
        if not reason:
            continue
        if strict and _test(item) not in run:
            _fail(item, reason)
        else:
            item.add_marker(pytest.mark.skip(reason=reason))


def refuse(config: pytest.Config, reason: str) -> NoReturn:
    """A test turns out to be unable to run on its target, now that it is there."""
    # Of several targets, another one may be able to.
    if is_strict(config) and len(chosen.names(config)) == 1:
        pytest.fail(reason, pytrace=False)
    # The test's place: nobody wants to know of ours.
    raise pytest.skip.Exception(reason, _use_item_location=True)


def _test(item: pytest.Item) -> Hashable:
    """What the instances of one test on several targets have in common."""
    callspec = getattr(item, "callspec", None)
    if callspec is None:
        return item
    indices: Mapping[str, int] = callspec.indices
    others = frozenset((name, n) for name, n in indices.items() if name not in _FIXTURES)
    return item.parent, getattr(item, "originalname", item.name), others


def _fail(item: pytest.Item, reason: str) -> None:
    """Failed, and no error: so it fails when it is called, and nothing is set up for it."""

    def fails() -> None:
        pytest.fail(reason, pytrace=False)

    runtest: Callable[[], None] = fails
    item.fixturenames = []  # type: ignore[attr-defined]
    item.runtest = runtest  # type: ignore[method-assign]
