"""What a test author may import is there, is documented, and costs nothing until used."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import pytest_hil

ROOT = Path(__file__).parents[1]


def test_all_is_sorted_and_without_doubles() -> None:
    assert pytest_hil.__all__ == sorted(set(pytest_hil.__all__))


@pytest.mark.parametrize("name", pytest_hil.__all__)
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    found = getattr(pytest_hil, name)
    assert found.__name__ == name
    # Its own words: inspect.getdoc would accept those of a base class, or dataclass's signature.
    assert found.__doc__
    assert not found.__doc__.startswith(f"{name}(")


# An error's class says it all.
WITH_METHODS = [
    name for name in pytest_hil.__all__ if not issubclass(getattr(pytest_hil, name), Exception)
]


@pytest.mark.parametrize("name", WITH_METHODS)
def test_every_public_name_says_what_its_methods_do(name: str) -> None:
    found = getattr(pytest_hil, name)
    methods = inspect.getmembers(found, inspect.isfunction)
    public = [(method, function) for method, function in methods if not method.startswith("_")]
    assert [method for method, function in public if not inspect.getdoc(function)] == []


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING are what __getattr__ finds."""
    tree = ast.parse((ROOT / "pytest_hil" / "__init__.py").read_text())
    checked = {
        (alias.name, node.module)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pytest_hil.")
        for alias in node.names
    }
    assert {name for name, _ in checked} == set(pytest_hil.__all__)
    for name, module in checked:
        assert module is not None
        assert getattr(pytest_hil, name).__module__.startswith(module.rpartition(".")[0])


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'pytest_hil' has no attribute 'Tarrget'"):
        _ = pytest_hil.Tarrget


def test_import_costs_nothing() -> None:
    script = (
        "import sys, __future__, importlib, typing; before = set(sys.modules); import pytest_hil; "
        "print(*sorted(set(sys.modules) - before)); print(sorted(dir(pytest_hil))[:1]); "
        "pytest_hil.HilError; print('pytest_hil.errors' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["pytest_hil", "['AttachFailed']", "True"]


def test_types_are_for_users_too() -> None:
    assert (ROOT / "pytest_hil" / "py.typed").is_file()
