"""The markers ``hil(...)`` and ``hardware``: what a test wants of its target."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from pytest_hil.errors import nearest

if TYPE_CHECKING:
    from pytest_hil.kernel import Requirement, Version

_HIL = """hil(features=[…], target=NAME, memory="512M", smp=2, …): what this test wants of its \
target; `pytest --hil-list` shows the targets, docs/reference/marker.md the keys"""
_HARDWARE = "hardware: for boards only; skipped on emulated machines"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the markers of one test say.

    ``targets`` None: any. ``changes``: keys of ``[target.NAME]`` with other values.
    ``kernel``: what it must be, None: any; ``crash_ignore``: titles of crashes that are none here.
    """

    features: frozenset[str] = frozenset()
    targets: tuple[str, ...] | None = None
    hardware: bool = False
    changes: Mapping[str, Any] | None = None
    kernel: Requirement | None = None
    crash_ignore: tuple[re.Pattern[str], ...] = ()


_NOTHING = Wish()

_T = TypeVar("_T")
_R = TypeVar("_R")


def hil(
    *,
    features: str | Iterable[str] = (),
    target: str | Iterable[str] | None = None,
    memory: str | int | None = None,
    smp: int | None = None,
    cpu: str | None = None,
    machine: str | None = None,
    image: str | None = None,
    kernel: str | PathLike[str] | None = None,
    kernel_config: str | Iterable[str] = (),
    crash_ignore: str | Iterable[str] = (),
    append: str | None = None,
    network: str | None = None,
    forwards: Sequence[int | str] | None = None,
    extra_args: Sequence[str] | None = None,
) -> Wish:
    """The marker's signature.

    ``features``: skip the test on a target that lacks one of them. ``target``: run only on these.
    ``kernel=">=6.1"`` and ``kernel_config``: skip it on another kernel. ``crash_ignore``: crashes
    whose title one of these regular expressions is found in fail nothing. All others, and a file
    as ``kernel``, are those of ``[target.NAME]`` in boards.toml, and replace what it says there.
    """
    required: Requirement | None = None
    if kernel is not None or kernel_config:
        from pytest_hil import kernel as requirement

        versions: tuple[tuple[str, Version], ...] = ()
        if isinstance(kernel, str) and requirement.is_requirement(kernel):
            versions, kernel = _checked("kernel", requirement.versions, kernel), None
        names = _words("kernel_config", kernel_config)
        required = requirement.Requirement(
            versions, _checked("kernel_config", requirement.names, names)
        )
    changes = {
        "memory": memory,
        "smp": smp,
        "cpu": cpu,
        "machine": machine,
        "image": image,
        "kernel": kernel,
        "append": append,
        "network": network,
        "forwards": forwards,
        "extra_args": extra_args,
    }
    return Wish(
        features=frozenset(_words("features", features)),
        targets=None if target is None else _words("target", target),
        changes={key: value for key, value in changes.items() if value is not None},
        kernel=required or None,
        crash_ignore=tuple(
            _checked("crash_ignore", _pattern, one) for one in _words("crash_ignore", crash_ignore)
        ),
    )


_NAMES = ("hil", "hardware")

KEYS = tuple(inspect.signature(hil).parameters)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _HIL)
    config.addinivalue_line("markers", _HARDWARE)


def wish_of(node: pytest.Item) -> Wish:
    """What a test's markers say together: the closest one wins, features add up.

    Raises CollectError, which names the test and its place.
    """
    marks = _marks_of(node)
    if not marks:
        return _NOTHING
    features: frozenset[str] = frozenset()
    targets: tuple[str, ...] | None = None
    changes: dict[str, Any] = {}
    kernel: Requirement | None = None
    ignore: tuple[re.Pattern[str], ...] = ()
    for mark in marks:
        said = _said(mark, node)
        features |= said.features
        targets = said.targets if targets is None else targets
        changes = {**(said.changes or {}), **changes}
        if said.kernel is not None:
            kernel = said.kernel if kernel is None else kernel + said.kernel
        ignore += said.crash_ignore
    hardware = any(mark.name == "hardware" for mark in marks)
    return Wish(features, targets, hardware, changes, kernel, ignore)


def of_parameters(node: pytest.Item) -> list[pytest.Mark]:
    """Our markers of ``pytest.param(…, marks=…)``."""
    callspec = getattr(node, "callspec", None)
    return [mark for mark in getattr(callspec, "marks", ()) if mark.name in _NAMES]


def _marks_of(node: pytest.Item) -> list[pytest.Mark]:
    """All of ours, the closest first; pytest has those of parameters behind the function's own."""
    closest = of_parameters(node)
    others = [mark for mark in node.iter_markers() if mark.name in _NAMES]
    return [*closest, *(mark for mark in others if all(mark is not one for one in closest))]


def _said(mark: pytest.Mark, node: pytest.Item) -> Wish:
    """What one marker says, by a call of its signature."""
    wrong = f"@pytest.mark.{mark.name}"
    if mark.name == "hardware":
        if mark.args or mark.kwargs:
            raise error(node, f"{wrong} takes no arguments")
        return _NOTHING
    if mark.args:
        raise error(node, f"{wrong} takes keywords only: {wrong}({_guess(mark.args)})")
    for key in mark.kwargs:
        if key not in KEYS:
            raise error(node, f"{wrong}({key}=…): there is no such key; {nearest(key, KEYS)}")
    try:
        return hil(**mark.kwargs)
    except TypeError as bad:
        raise error(node, f"{wrong}: {bad}") from None


def error(node: pytest.Item, what: str) -> pytest.Collector.CollectError:
    """An error of a test's marker, with the test and its place."""
    path, line, name = node.location
    return pytest.Collector.CollectError(f"{path}:{(line or 0) + 1}: {name}: {what}")


def _words(key: str, value: str | Iterable[str]) -> tuple[str, ...]:
    """One word or several. Raises TypeError."""
    words = (value,) if isinstance(value, str) else tuple(value)
    for word in words:
        if not isinstance(word, str):
            raise TypeError(f"{key}={value!r}: a name or a list of names is wanted")
    return words


def _pattern(text: str) -> re.Pattern[str]:
    """Raises ValueError."""
    try:
        return re.compile(text)
    except re.error as wrong:
        raise ValueError(f"{text!r} is no regular expression: {wrong}") from None


def _checked(key: str, check: Callable[[_T], _R], value: _T) -> _R:
    try:
        return check(value)
    except ValueError as wrong:
        raise TypeError(f"{key}: {wrong}") from None


def _guess(args: Sequence[object]) -> str:
    """What somebody may have meant who wrote ``hil("usb")``."""
    return f"features={[a for a in args if isinstance(a, str)] or ['…']!r}"
