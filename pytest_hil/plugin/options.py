"""What all features need to have options: the group in ``--help``, and checks of values.

Options keep their values as plain text or numbers.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from _pytest.config.argparsing import OptionGroup

T = TypeVar("T")


def group(parser: pytest.Parser) -> OptionGroup:
    """The options' place in ``--help``."""
    return parser.getgroup("hil", "machines to test on (pytest-hil)")


def file(text: str) -> str:
    """``type=`` of an option that names a file which is there; its absolute path."""
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"{text}: {_why(path, 'file')}")
    return str(path)


def directory(text: str) -> str:
    """``type=`` of an option that names a directory which is there; its absolute path."""
    path = Path(text).expanduser().absolute()
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: {_why(path, 'directory')}")
    return str(path)


def new_directory(text: str) -> str:
    """``type=`` of an option that names a directory which may have to be made."""
    path = Path(text).expanduser().absolute()
    if path.exists() and not path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: not a directory")
    return str(path)


def seconds(text: str) -> float:
    """``type=`` of an option that is a time: a positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write seconds, such as 60 or 2.5")
    return number


def count(text: str) -> int:
    """A whole number, at least one."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def one_of(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def check(text: str) -> str:
        if text not in words:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return check


def chosen(config: pytest.Config, name: str, check: Callable[[str], T], default: T) -> T:
    """The option ``--hil-NAME``, else the ini value ``hil_NAME``, else the default.

    Raises UsageError, which names the ini file and the key, when the ini value is wrong.
    """
    option: T | None = config.getoption(f"hil_{name}", default=None)
    if option is not None:
        return option
    return ini(config, f"hil_{name}", check, default)


def ini(config: pytest.Config, key: str, check: Callable[[str], T], default: T) -> T:
    """An ini value, checked; the default when it is not set."""
    text = config.getini(key)
    if not text:
        return default
    try:
        return check(str(text))
    except argparse.ArgumentTypeError as wrong:
        raise pytest.UsageError(f"{config.inipath or 'the ini file'}: {key}: {wrong}") from None


def _why(path: Path, wanted: str) -> str:
    return f"not a {wanted}" if path.exists() else f"there is no such {wanted}"
