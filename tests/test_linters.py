"""The linters are tests, so that one command says whether a change is clean."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Directories of a checkout without git that are no part of the project.
IGNORED = re.compile(r"(^|/)(\.(?!ci/|github/)[^/]*|__pycache__|build|dist|bin|[^/]*\.egg-info)/")

# Where somebody's machine or network shows: nothing in the project may depend on it.
PRIVATE = {
    "a machine's path": r"(?<![\w.}])/(?:work|home/\w+|Users/\w+|root/\.\w+)/[\w.]",
    "a package registry's host": r"\b(?:pypi|pythonhosted|npmjs|crates|rubygems)\.(?:org|io|com)\b"
    r"|\b(?:deb|security|snapshot)\.debian\.org\b|\b(?:archive|ports)\.ubuntu\.com\b"
    r"|\b(?:ghcr|quay|docker)\.io\b|\bproxy\.golang\.org\b",
}


@pytest.mark.parametrize(
    "command", ["ruff check", "ruff format --check", "mypy"], ids=lambda command: command
)
def test_linter(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command.split()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def text_files() -> Iterator[tuple[Path, str]]:
    """The project's text files: tracked, or about to be."""
    for path in listed():
        try:
            yield path, (ROOT / path).read_text(encoding="utf-8")
        except (FileNotFoundError, IsADirectoryError, UnicodeDecodeError):
            continue


def listed() -> list[Path]:
    """By git where there is one, so that an untracked file counts and an ignored one does not."""
    argv = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(argv, cwd=ROOT, capture_output=True, check=True, timeout=60)
    except (FileNotFoundError, subprocess.CalledProcessError):
        found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
        return [path for path in found if not IGNORED.search(path.as_posix())]
    return [Path(name) for name in done.stdout.decode().split("\0") if name]


def private(text: str) -> list[str]:
    return [
        f"line {number}: {what}: {match[0]}"
        for number, line in enumerate(text.splitlines(), 1)
        for what, pattern in PRIVATE.items()
        for match in re.finditer(pattern, line)
    ]


def test_nothing_names_a_machine_or_a_registry() -> None:
    files = dict(text_files())
    assert Path("pyproject.toml") in files
    assert Path("tests/test_linters.py") in files
    found = {str(path): private(text) for path, text in files.items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_private_names_are_seen() -> None:
    # Put together here, so that this file is clean itself.
    for host, directory in (("pypi", "work"), ("npmjs", "home/ann"), ("crates", "Users/ann")):
        assert len(private(f"fine\nsee https://{host}.{'io'}/x and /{directory}/.cache\n")) == 2
    assert private("a/framework/x; /root/file; pytest.org; net/work/x") == []
